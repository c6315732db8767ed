"""The on-disk token format: flat little-endian ``train.bin`` and ``val.bin`` beside ``meta.json``.

Ids are uint16, or uint32 when the vocabulary has more than 65,536 entries. ``meta.json`` holds the
format's name, the dtype, the token and byte counts of each split, the tokeniser and the source.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .atomic import sync
from .errors import RunError

FORMAT = "hyperstreams-tokens-1"
_KEYS = {"source", "sha256", "dtype", "tokens", "bytes", "tokenizer"}
_DTYPES = {"uint16": torch.uint16, "uint32": torch.uint32}


def token_dtype(vocab_size: int) -> str:
    """The narrowest dtype of the format that holds every id below ``vocab_size``."""
    if vocab_size <= 2**16:
        return "uint16"
    if vocab_size <= 2**32:
        return "uint32"
    raise RunError(f"vocab_size: expected at most 2**32, got {vocab_size}")


def write_tokens(folder: str | Path, splits: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a folder of the format at once: a half-written one is never seen under its name.

    ``splits`` maps ``"train"`` and ``"val"`` to int64 ids ``[tokens]``; ``meta`` holds ``source``,
    ``sha256``, ``bytes`` (of each split) and ``tokenizer`` (what :meth:`Tokenizer.describe` gives).
    An id outside the vocabulary is an error, so that nothing wraps around in the narrow dtype.
    """
    _check_byte_order()
    folder = Path(folder)
    vocab_size = int(meta["tokenizer"]["vocab_size"])
    dtype = token_dtype(vocab_size)
    for name, tokens in splits.items():
        if tokens.numel() == 0:
            raise RunError(f"{name} split: expected at least one token, got none")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= vocab_size:
            raise RunError(
                f"{name} split: expected ids in 0..{vocab_size - 1}, got {low if low < 0 else high}"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, tokens in splits.items():
            path = temporary / f"{name}.bin"
            mapped = torch.from_file(
                str(path), shared=True, size=tokens.numel(), dtype=_DTYPES[dtype]
            )
            mapped.copy_(tokens)
            del mapped
            sync(path)
        full = {
            **meta,
            "format": FORMAT,
            "dtype": dtype,
            "tokens": {name: tokens.numel() for name, tokens in splits.items()},
        }
        (temporary / "meta.json").write_text(json.dumps(full, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)
        except OSError as error:
            raise FileExistsError(f"{folder} exists already") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_tokens(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Map the splits of a folder into memory: ``({"train": ids, "val": ids}, meta)``."""
    _check_byte_order()
    folder = Path(folder)
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"dataset {folder}: no meta.json; make such a folder with 'hyperstreams prepare'"
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    stated = meta.get("format") if isinstance(meta, dict) else None
    if stated != FORMAT:
        raise RunError(f"{path}: expected format {FORMAT!r}, got {stated!r}")
    if missing := _KEYS - meta.keys():
        raise RunError(f"{path}: {', '.join(sorted(missing))} missing")
    splits = {}
    for name, count in meta["tokens"].items():
        dtype = _DTYPES[meta["dtype"]]
        file = folder / f"{name}.bin"
        size = file.stat().st_size if file.exists() else 0
        if size != count * dtype.itemsize:
            raise RunError(
                f"{file}: expected {count * dtype.itemsize} bytes as meta.json says, got {size}"
            )
        splits[name] = torch.from_file(str(file), shared=False, size=count, dtype=dtype)
    return splits, meta


def _check_byte_order() -> None:
    if sys.byteorder != "little":
        raise RunError("token files are little-endian; this machine is big-endian")
