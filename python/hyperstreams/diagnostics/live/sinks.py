"""Where a probe's scalars go: a dict, a JSON-lines file, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

Sink = Callable[[int, Mapping[str, float]], None]
"""``sink(step, scalars)``."""


def _require(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{package} is not installed ({error}): pip install 'hyperstreams[log]'"
        ) from error


def json_values(scalars: Mapping[str, float]) -> dict[str, float | None]:
    """The same with None for what JSON has no number for: nan and infinities."""
    return {name: value if math.isfinite(value) else None for name, value in scalars.items()}


class DictSink(dict[str, list[tuple[int, float]]]):
    """``{name: [(step, value), ...]}`` in memory."""

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self.setdefault(name, []).append((step, value))


class JsonlSink:
    """Appends ``{"kind": "probe", "step": ..., name: value, ...}`` lines to ``path``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": "probe", "step": step, **json_values(scalars)}) + "\n")


class TensorBoardSink:
    """Writes to a ``SummaryWriter``, or to a new one in a folder; needs tensorboard."""

    def __init__(self, writer: Any) -> None:
        if isinstance(writer, str | Path):
            _require("tensorboard", "tensorboard")
            module = _require("torch.utils.tensorboard", "tensorboard")
            writer = module.SummaryWriter(str(writer))
        self.writer = writer

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)


class WandbSink:
    """Logs to a run of Weights & Biases, or to the current one; needs wandb."""

    def __init__(self, run: Any = None) -> None:
        self.run = _require("wandb", "wandb") if run is None else run

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        self.run.log(dict(scalars), step=step)
