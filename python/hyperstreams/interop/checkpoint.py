"""Foreign checkpoints as named tensors: files are read weights-only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor


@dataclass
class Checkpoint:
    """Tensors by name, each read when asked for.

    settings : the code base's own configuration, where the checkpoint or its folder holds one.
    extras : names of what is beside the model (optimiser state, counters).
    """

    readers: dict[str, Callable[[], Tensor]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: tuple[str, ...] = ()

    def tensor(self, name: str) -> Tensor:
        """The tensor: floating-point ones in float32, or float64 as stored."""
        value = self.readers[name]()
        if value.is_floating_point() and value.dtype != torch.float64:
            return value.float()
        return value


def open_checkpoint(source: str | Path | Mapping[str, Any]) -> Checkpoint:
    """A state dict, a nanoGPT checkpoint, a ``.safetensors`` or PyTorch file, or a folder of them.

    A folder's ``config.json`` gives the settings.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_foreign: {path}: no such file or folder")
    return _from_file(path)


def _from_mapping(data: Mapping[str, Any]) -> Checkpoint:
    extras: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}
    if isinstance(data.get("model"), Mapping):
        settings = data.get("model_args", {})
        extras = tuple(name for name in data if name not in ("model", "model_args"))
        data = data["model"]
    readers: dict[str, Callable[[], Tensor]] = {}
    for name, value in data.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"load_foreign: {name}: expected a tensor, got {type(value).__name__}; give a "
                "state dict or {'model': state dict, 'model_args': ...}"
            )
        for prefix in ("module.", "_orig_mod."):  # of DistributedDataParallel, torch.compile
            name = name.removeprefix(prefix)
        readers[name] = partial(_given, value)
    return Checkpoint(readers, settings, extras)


def _given(value: Tensor) -> Tensor:
    return value


def _from_file(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        try:
            from safetensors import safe_open
        except ImportError as error:
            raise ImportError(
                f"load_foreign: {path.name}: needs safetensors: pip install hyperstreams[train]"
            ) from error
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())

        def read(name: str) -> Tensor:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)

        return Checkpoint({name: partial(read, name) for name in names})
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"load_foreign: {path}: expected tensors and plain numbers alone, as weights-only "
            "loading takes them; it holds other Python objects, or is no PyTorch file"
        ) from error
    return _from_mapping(data)


def _from_folder(path: Path) -> Checkpoint:
    files = sorted(path.glob("*.safetensors")) or sorted(
        file for suffix in ("pt", "pth", "bin") for file in path.glob(f"*.{suffix}")
    )
    if not files:
        raise FileNotFoundError(
            f"load_foreign: {path}: expected .safetensors, .pt, .pth or .bin files in the folder"
        )
    joined = Checkpoint({})
    for file in files:
        part = _from_file(file)
        joined.readers.update(part.readers)
        joined.settings = {**joined.settings, **part.settings}
        joined.extras += part.extras
    config = path / "config.json"
    if config.is_file():
        joined.settings = {**json.loads(config.read_text(encoding="utf-8")), **joined.settings}
    return joined
