"""A crosscoder in a folder: weights as safetensors, everything else as JSON."""

from __future__ import annotations

import json
import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from .config import CrosscoderConfig
from .model import Crosscoder

WEIGHTS, RECORD, LATENTS = "crosscoder.safetensors", "crosscoder.json", "latents.safetensors"
FORMAT = "hyperstreams.crosscoder.v1"


def require_safetensors() -> Any:
    """``safetensors.torch``, or an error that names the extra."""
    try:
        return import_module("safetensors.torch")
    except ImportError as error:
        raise ImportError(
            "reading and writing crosscoders needs the package 'safetensors': "
            f"pip install 'hyperstreams[train]' ({error})"
        ) from error


def save_crosscoder(
    folder: str | Path,
    coder: Crosscoder,
    record: dict[str, Any],
    *,
    latents: dict[str, Tensor] | None = None,
) -> Path:
    """Write ``crosscoder.safetensors`` and ``crosscoder.json``, all or nothing, into ``folder``.

    record : what the numbers belong to and what came out (JSON values). The settings are added.
    latents : numbers per latent (densities, ...), kept in ``latents.safetensors``.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = {name: value.contiguous().cpu() for name, value in coder.state_dict().items()}
    require_safetensors().save_file(weights, temporary / WEIGHTS)
    if latents:
        kept = {name: value.contiguous().cpu() for name, value in latents.items()}
        require_safetensors().save_file(kept, temporary / LATENTS)
    head = {
        "format": FORMAT,
        "config": coder.config.flat(),
        "n_sites": coder.n_sites,
        "width": coder.width,
    }
    (temporary / RECORD).write_text(json.dumps(head | record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)
    return folder


def load_record(folder: str | Path) -> dict[str, Any]:
    """The JSON of :func:`save_crosscoder`, checked for its format."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise ValueError(f"load_crosscoder: {folder}: expected a folder with {RECORD}")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ValueError(
            f"load_crosscoder: {path}: expected format {FORMAT!r}, got {record.get('format')!r}"
        )
    return record


def load_crosscoder(folder: str | Path) -> tuple[Crosscoder, dict[str, Any]]:
    """``(coder, record)`` from :func:`save_crosscoder`; the coder is frozen."""
    record = load_record(folder)
    coder = Crosscoder(
        CrosscoderConfig.from_flat(record["config"]),
        n_sites=record["n_sites"],
        width=record["width"],
    )
    coder.load_state_dict(require_safetensors().load_file(Path(folder) / WEIGHTS))
    return coder.eval().requires_grad_(False), record


def load_latents(folder: str | Path) -> dict[str, Tensor]:
    """The numbers per latent that were saved with a crosscoder."""
    latents: dict[str, Tensor] = require_safetensors().load_file(Path(folder) / LATENTS)
    return latents
