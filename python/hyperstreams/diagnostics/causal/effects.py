"""What interventions do to a model's output: KL, loss and agreement, over batches, as tables."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..live.trace import Trace, trace
from .interventions import Edit, Rescue, Routing, intervene

Batch = tuple[Tensor, Tensor]
Measure = Literal["kl", "delta_loss", "top1"]
MEASURES = ("kl", "delta_loss", "top1")
CHUNK = 256
"""Tokens whose logits are in float64 at a time."""


class Change(NamedTuple):
    """Of one batch: ``kl`` and ``delta_loss`` in nats per token, ``top1`` the agreeing share."""

    kl: float
    delta_loss: float
    top1: float
    clean_loss: float


@torch.no_grad()
def output_change(clean: Tensor, changed: Tensor, targets: Tensor | None = None) -> Change:
    """Compare the logits ``[..., V]`` of two forwards of one batch, in float64.

    ``kl = mean_t KL(softmax(clean_t) || softmax(changed_t))``; ``delta_loss`` the changed minus the
    clean cross-entropy over ``targets`` (-1: left out; None: nan); ``top1`` the share of tokens
    with the same most likely next token. Equal logits: exactly 0, 0 and 1.
    """
    if clean.shape != changed.shape:
        raise ValueError(
            f"output_change: changed: expected logits of shape {list(clean.shape)}, "
            f"got {list(changed.shape)}"
        )
    rows = [logits.flatten(0, -2).split(CHUNK) for logits in (clean, changed)]
    tokens = clean.numel() // clean.shape[-1]
    labels: Sequence[Tensor | None] = [None] * len(rows[0])
    if targets is not None:
        labels = targets.to(clean.device).flatten().split(CHUNK)
    divergence, agree, counted = 0.0, 0.0, 0.0
    losses = [0.0, 0.0]
    for a, b, label in zip(*rows, labels, strict=True):
        p, q = (functional.log_softmax(logits.double(), dim=-1) for logits in (a, b))
        divergence += float((p.exp() * (p - q)).sum())
        agree += float((a.argmax(dim=-1) == b.argmax(dim=-1)).sum())
        if label is not None:
            counted += float((label != -1).sum())
            for k, logits in enumerate((p, q)):
                losses[k] += float(
                    functional.nll_loss(logits, label, ignore_index=-1, reduction="sum")
                )
    first, second = (loss / counted if counted else math.nan for loss in losses)
    return Change(divergence / tokens, second - first, agree / tokens, first)


@dataclass(frozen=True)
class EffectTable:
    """Effects of many interventions, per batch, in float64 on the CPU.

    axes : name of each axis to the names along it, ``{"streams": ("s0", "s1"), ...}``.
    kl, delta_loss, top1 : ``[batches, *axes]``; see :func:`output_change`. clean_loss :
    ``[batches]``. tokens : of all batches. details : what was done; JSON values only.
    """

    axes: dict[str, tuple[str, ...]]
    kl: Tensor
    delta_loss: Tensor
    top1: Tensor
    clean_loss: Tensor
    tokens: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(names) for names in self.axes.values())

    def mean(self, measure: Measure = "kl") -> Tensor:
        """Mean over batches, ``[*axes]``."""
        return self._of(measure).mean(dim=0)

    def standard_error(self, measure: Measure = "kl") -> Tensor:
        """Standard error over batches, taken as independent; nan for one. Silent about seeds."""
        values = self._of(measure)
        if len(values) < 2:
            return torch.full(self.shape, torch.nan, dtype=torch.float64)
        return values.std(dim=0) / len(values) ** 0.5

    def _of(self, measure: str) -> Tensor:
        if measure not in MEASURES:
            raise ValueError(
                f"EffectTable: measure: expected one of {', '.join(MEASURES)}, got {measure!r}"
            )
        values: Tensor = getattr(self, measure)
        return values

    def rows(self) -> list[dict[str, Any]]:
        """Long format, one row per cell: the axes' names, each measure and its standard error."""
        numbers = {m: (self.mean(m), self.standard_error(m)) for m in MEASURES}  # type: ignore[arg-type]
        result = []
        for index in itertools.product(*(range(size) for size in self.shape)):
            row: dict[str, Any] = {
                axis: names[k] for (axis, names), k in zip(self.axes.items(), index, strict=True)
            }
            for measure, (mean, error) in numbers.items():
                row[measure] = mean[index].item()
                row[f"{measure}_standard_error"] = error[index].item()
            result.append(row)
        return result

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values; :meth:`from_json` is the inverse, bit for bit."""
        return {
            "format": "hyperstreams.effects.v1",
            "axes": {axis: list(names) for axis, names in self.axes.items()},
            "tokens": self.tokens,
            "details": self.details,
            "clean_loss": self.clean_loss.tolist(),
            **{measure: getattr(self, measure).tolist() for measure in MEASURES},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EffectTable:
        """What :meth:`to_json` wrote; ValueError for anything else."""
        if values.get("format") != "hyperstreams.effects.v1":
            raise ValueError(
                "EffectTable.from_json: format: expected 'hyperstreams.effects.v1', "
                f"got {values.get('format')!r}"
            )
        axes = {axis: tuple(names) for axis, names in values["axes"].items()}
        shape = (-1, *(len(names) for names in axes.values()))
        tensors = {
            name: torch.tensor(values[name], dtype=torch.float64)
            for name in (*MEASURES, "clean_loss")
        }
        return cls(
            axes=axes,
            tokens=values["tokens"],
            details=dict(values["details"]),
            clean_loss=tensors.pop("clean_loss"),
            **{name: tensor.reshape(shape) for name, tensor in tensors.items()},
        )

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_json` to ``path``."""
        Path(path).write_text(json.dumps(self.to_json()), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> EffectTable:
        """Read what :meth:`save` wrote."""
        return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))


def measure_grid(
    model: nn.Module,
    axes: Mapping[str, Sequence[str]],
    plans: Sequence[Sequence[Edit]],
    batches: Iterable[Batch],
    *,
    routing: Routing = "live",
    generator: torch.Generator | None = None,
    details: Mapping[str, Any] | None = None,
) -> EffectTable:
    """Run every plan (a list of edits) on every batch: one forward each, and one clean.

    axes : shape and names of the table; ``plans`` holds its cells, last axis fastest. The model
    runs in evaluation mode and is put back. A trace is kept, a batch at a time, only where clean
    values are needed.
    """
    needs_clean = routing == "frozen" or any(isinstance(e, Rescue) for plan in plans for e in plan)

    def block(plan: Sequence[Edit], clean: Trace | None) -> AbstractContextManager[None]:
        return intervene(model, *plan, routing=routing, clean=clean, generator=generator)

    return measure_blocks(
        model,
        axes,
        [partial(block, plan) for plan in plans],
        batches,
        needs_clean=needs_clean,
        details={"routing": routing, **(details or {})},
    )


@torch.no_grad()
def measure_blocks(
    model: nn.Module,
    axes: Mapping[str, Sequence[str]],
    blocks: Sequence[Callable[[Trace | None], AbstractContextManager[None]]],
    batches: Iterable[Batch],
    *,
    needs_clean: bool = False,
    details: Mapping[str, Any] | None = None,
) -> EffectTable:
    """As :func:`measure_grid`, for any changes: ``blocks[k](clean)`` is a context manager in which
    the model is the k-th changed one; ``clean`` is the batch's trace, None unless needed."""
    names = {axis: tuple(along) for axis, along in axes.items()}
    shape = tuple(len(along) for along in names.values())
    if math.prod(shape) != len(blocks):
        raise ValueError(
            f"measure_blocks: blocks: expected {math.prod(shape)} for axes of {list(shape)}, "
            f"got {len(blocks)}"
        )
    device = next(model.parameters()).device
    found: list[list[Change]] = []
    clean_losses, tokens = [], 0
    training = model.training
    model.eval()
    try:
        for inputs, targets in batches:
            inputs, targets = inputs.to(device), targets.to(device)
            clean = trace(model, inputs) if needs_clean else None
            logits = _logits(model, inputs) if clean is None else clean.logits
            changes = []
            for block in blocks:
                with block(clean):
                    changes.append(output_change(logits, _logits(model, inputs), targets))
            found.append(changes)
            clean_losses.append(output_change(logits, logits, targets).clean_loss)
            tokens += targets.numel()
    finally:
        model.train(training)
    if not found:
        raise ValueError("measure_blocks: batches: expected at least one, got none")
    values = torch.tensor(
        [[change[:3] for change in changes] for changes in found], dtype=torch.float64
    ).reshape(len(found), *shape, 3)
    kl, delta_loss, top1 = (part.contiguous() for part in values.unbind(dim=-1))
    return EffectTable(
        axes=names,
        kl=kl,
        delta_loss=delta_loss,
        top1=top1,
        clean_loss=torch.tensor(clean_losses, dtype=torch.float64),
        tokens=tokens,
        details={"divergence": "KL(clean || intervened)", **(details or {})},
    )


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    output = model(inputs)
    return output if isinstance(output, Tensor) else output[0]


def effects(
    model: nn.Module,
    interventions: Mapping[str, Sequence[Edit] | Edit],
    batches: Iterable[Batch],
    *,
    routing: Routing = "live",
    generator: torch.Generator | None = None,
) -> EffectTable:
    """The effect of each named intervention on the model's output, over batches::

        effects(model, {"s2 from L1a on": Ablate([2], "L1a:")}, data.eval_batches(8, 32))

    model : called with ``tokens``, returns logits or a tuple that begins with them, as GPT does.
    interventions : name to an edit or a list of them. routing, generator : as in
    :func:`.interventions.intervene`. Returns a table with the axis ``"intervention"``.
    """
    plans = [list(e) if isinstance(e, Sequence) else [e] for e in interventions.values()]
    return measure_grid(
        model,
        {"intervention": list(interventions)},
        plans,
        batches,
        routing=routing,
        generator=generator,
    )
