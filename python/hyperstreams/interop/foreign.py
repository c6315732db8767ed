"""Foreign checkpoints in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import check_choice
from ..models import GPT
from .checkpoint import Checkpoint, open_checkpoint
from .groups import Groups
from .modules import load_modules, save_modules
from .nanogpt import NAME as NANOGPT
from .nanogpt import TEXT, is_nanogpt, load_nanogpt, save_nanogpt
from .report import ForeignReport
from .sources import SOURCES

FOREIGN = {NANOGPT: TEXT, **{name: source.text for name, source in SOURCES.items()}}
"""Layouts that :func:`load_foreign` reads and :func:`to_foreign` writes, with a line on each."""


def detect(checkpoint: Checkpoint) -> str:
    """The layout of a checkpoint, from its names; ValueError when it is none of ours."""
    names = list(checkpoint.readers)
    if is_nanogpt(checkpoint.readers):
        return NANOGPT
    groups = {name: Groups(source, names) for name, source in SOURCES.items()}
    found = [name for name, group in groups.items() if group.complete]
    # A head alone is the release's; Megatron-LM calls it the same.
    found = found or [name for name, group in groups.items() if group.heads]
    # Last, sites that lack something, for the error that says what.
    found = found or [name for name, group in groups.items() if group.sites]
    if not found:
        raise ValueError(
            f"load_foreign: expected tensors of one of {', '.join(FOREIGN)}, got "
            f"{', '.join(sorted(names)[:6])}, ..."
        )
    return found[0]


def load_foreign(
    checkpoint: str | Path | Mapping[str, Any],
    *,
    source: str | None = None,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> tuple[GPT | nn.ModuleDict, ForeignReport]:
    """Load a checkpoint of another code base; ``(model or modules, report)``.

    checkpoint : a file (``.safetensors``, or PyTorch's, read weights-only), a folder of them (of
        which only the connections' tensors are read), or a state dict.
    source : its layout, a name in ``interop.FOREIGN``; None: detected from the tensors' names.
    config : what the tensors do not tell, by the code base's own names (nanoGPT's ``model_args``,
        Hugging Face's configuration, ...); None: what the checkpoint or the folder's
        ``config.json`` says. What is in neither has the code base's default, and is reported.
    strict : unknown tensors among a connection's are an error; False reports them as dropped.
        Missing ones are always an error.

    ``nanogpt`` gives a :class:`GPT`. The others give a ``ModuleDict``: every site a
    :class:`nn.Connection` (``L0a``, ``L0m``, ... where the names tell layers, ``mtp0a`` in
    multi-token-prediction blocks, else the foreign prefix; ``site`` without one), every learned
    head a ``ReduceStreams`` (``head``). Tensors outside the connections are counted as dropped.
    Orientation is converted here: the result computes the same function as the foreign module.
    """
    opened = open_checkpoint(checkpoint)
    if source is None:
        source = detect(opened)
    check_choice("load_foreign", "source", source, FOREIGN)
    settings = opened.settings if config is None else config
    if source == NANOGPT:
        return load_nanogpt(opened, settings, strict=strict)
    modules, report = load_modules(SOURCES[source], opened, settings, strict=strict)
    if not modules:
        raise ValueError(f"load_foreign: source: no tensors of {source!r} in the checkpoint")
    return modules, report


def to_foreign(
    model: nn.Module, target: str, *, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A state dict in another code base's layout; for ``nanogpt``, its whole checkpoint.

    model : what ``load_foreign`` returns, or a ``Connection``, a ``HyperConnection``, a
        ``ModuleDict`` of them, or a :class:`GPT`, of which all targets but ``nanogpt`` take the
        connections alone.
    target : a name in ``interop.FOREIGN``.
    config : settings of the target that differ from its defaults, as for :func:`load_foreign`.

    Raises ValueError when the target computes another function than the model's connection. A norm
    weight that the target does not have is multiplied into its projection.
    """
    check_choice("to_foreign", "target", target, FOREIGN)
    if target == NANOGPT:
        if not isinstance(model, GPT):
            raise TypeError(f"to_foreign: model: expected a GPT, got {type(model).__name__}")
        return save_nanogpt(model)
    return save_modules(SOURCES[target], model, config or {})
