"""Checkpoints: a folder of safetensors weights, JSON config and a weights-only-loadable state.

A checkpoint is written under a temporary name, flushed, and put in place by renaming. At any moment
``checkpoint`` or ``checkpoint.old`` is a complete one; a reader takes the first that is there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .atomic import sync, write_json
from .config import TrainConfig
from .errors import RunError, require

CURRENT, PREVIOUS = "checkpoint", "checkpoint.old"


def require_safetensors() -> Any:
    """``safetensors.torch``, or a worded error; asked for before a run starts."""
    return require("safetensors.torch", extra="train", purpose="writing and reading checkpoints")


def save_checkpoint(
    run_dir: Path, *, model: nn.Module, config: TrainConfig, state: dict[str, Any]
) -> None:
    """Replace the checkpoint of ``run_dir``.

    ``state`` (optimiser, random number generators, step) may hold tensors, numbers, strings, lists
    and dicts: what ``torch.load(weights_only=True)`` accepts.
    """
    temporary = run_dir / f".{CURRENT}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    require_safetensors().save_file(weights, temporary / "model.safetensors")
    torch.save(state, temporary / "training_state.pt")
    write_json(temporary / "config.json", config.flat())
    for name in ("model.safetensors", "training_state.pt"):
        sync(temporary / name)
    sync(temporary)
    current, previous = run_dir / CURRENT, run_dir / PREVIOUS
    if current.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(current, previous)
    os.rename(temporary, current)
    sync(run_dir)
    shutil.rmtree(previous, ignore_errors=True)


def find_checkpoint(run_dir: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    for name in (CURRENT, PREVIOUS):
        if (run_dir / name).is_dir():
            return run_dir / name
    return None


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Copy the saved weights into ``model``; every name must match."""
    weights: dict[str, Tensor] = require_safetensors().load_file(checkpoint / "model.safetensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"{checkpoint}: does not fit the model ({error})") from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The state given to :func:`save_checkpoint`, loaded without running any pickled code."""
    state: dict[str, Any] = torch.load(
        checkpoint / "training_state.pt", map_location="cpu", weights_only=True
    )
    return state
