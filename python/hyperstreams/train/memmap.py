"""The on-disk token format: flat little-endian ``train.bin`` and ``val.bin`` beside ``meta.json``.

Text that is only evaluated on has ``val.bin``, ``test.bin`` or both, and no ``train.bin``. Ids
are uint16, or uint32 when the vocabulary has more than 65,536 entries. ``meta.json`` holds the
format's name, the dtype, the token and byte counts of each split, the tokeniser and the source.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

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


class TokenWriter:
    """A folder of the format, written piece by piece: a split need not fit in memory.

    A context manager. Nothing appears under ``folder`` before :meth:`finish`; leaving without it
    removes what was written. An id outside the vocabulary is an error, so that nothing wraps
    around in the narrow dtype.
    """

    def __init__(self, folder: str | Path, vocab_size: int) -> None:
        _check_byte_order()
        self.folder = Path(folder)
        self.vocab_size = vocab_size
        self.dtype = token_dtype(vocab_size)
        self._files: dict[str, BinaryIO] = {}
        self._counts: dict[str, int] = {}
        self._digests: dict[str, Any] = {}

    def __enter__(self) -> TokenWriter:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(
            tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent)
        )
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def append(self, split: str, tokens: Tensor) -> None:
        """Add ids ``[tokens]`` (any integer dtype; may be none) to the end of a split."""
        if split not in self._files:
            self._files[split] = (self._temporary / f"{split}.bin").open("wb")
            self._counts[split] = 0
            self._digests[split] = hashlib.sha256()
        if tokens.numel() == 0:
            return
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab_size:
            raise RunError(
                f"{split} split: expected ids in 0..{self.vocab_size - 1}, "
                f"got {low if low < 0 else high}"
            )
        narrow = tokens.to(_DTYPES[self.dtype]).contiguous()
        # A view of the tensor's memory: PyTorch's own way to bytes would need NumPy.
        data = (ctypes.c_char * narrow.nbytes).from_address(narrow.data_ptr())
        self._files[split].write(data)
        self._digests[split].update(data)
        self._counts[split] += tokens.numel()

    def digest(self) -> str:
        """SHA-256 of dtype, split names and ids written so far."""
        parts = (f"{name}:{self._digests[name].hexdigest()}" for name in sorted(self._digests))
        return hashlib.sha256("|".join((self.dtype, *parts)).encode()).hexdigest()

    def finish(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``meta.json``, give the folder its name, return the whole meta."""
        for name, count in self._counts.items():
            if count == 0:
                raise RunError(f"{name} split: expected at least one token, got none")
        for file in self._files.values():
            file.close()
            sync(Path(file.name))
        full = {**meta, "format": FORMAT, "dtype": self.dtype, "tokens": dict(self._counts)}
        text = json.dumps(full, indent=1) + "\n"
        (self._temporary / "meta.json").write_text(text, encoding="utf-8")
        self._temporary.chmod(0o755)
        try:
            os.rename(self._temporary, self.folder)
        except OSError as error:
            raise FileExistsError(f"{self.folder} exists already") from error
        return full


def write_tokens(folder: str | Path, splits: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write whole splits at once; see :class:`TokenWriter`.

    ``splits`` maps ``"train"`` and ``"val"`` to int64 ids ``[tokens]``; ``meta`` holds ``source``,
    ``sha256``, ``bytes`` (of each split) and ``tokenizer`` (what :meth:`Tokenizer.describe` gives).
    """
    with TokenWriter(folder, int(meta["tokenizer"]["vocab_size"])) as writer:
        for name, tokens in splits.items():
            writer.append(name, tokens)
        writer.finish(meta)


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
