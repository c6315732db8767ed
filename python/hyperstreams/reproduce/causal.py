"""Interventions on a finished run, trained and at initialisation; kept with the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..diagnostics import (
    Compression,
    EffectTable,
    RescueTable,
    ablation_matrix,
    collapse_streams,
    mixer_matrix,
    rescue_matrix,
)
from ..models import GPT
from ..train import RunError
from ..train.atomic import write_json
from ..train.trainer import build_model
from .measurements import Measurement
from .runs import CapturedRun

BATCHES = 4
BATCH_SIZE = 4
"""Windows are few because every cell of every table is a forward pass over all of them."""
RESCUE_AFTER = 2
PHASES = ("initial", "trained")
_VERSION = 1


@dataclass(frozen=True)
class Causal:
    """D21, D22, D23 and the collapse to m streams (B4) of one model."""

    ablation: EffectTable
    rescue: RescueTable
    mixers: EffectTable
    compression: Compression

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Causal:
        return cls(
            EffectTable.from_json(values["ablation"]),
            RescueTable.from_json(values["rescue"]),
            EffectTable.from_json(values["mixers"]),
            Compression.from_json(values["compression"]),
        )


def causal(run: CapturedRun, phase: str) -> Causal:
    """All interventions of one phase (of ``PHASES``), measured on first use.

    On fixed windows of the validation split; the collapse to m streams is calibrated on as many
    windows of the training split. Each experiment is kept as soon as it is measured.
    """
    path = _path(run, phase)
    parts = _kept(path)
    missing = [name for name in EXPERIMENTS if name not in parts]
    if missing:
        model = run.loaded.model if phase == "trained" else build_model(run.loaded.config)
        path.parent.mkdir(exist_ok=True)
        for name in missing:
            try:
                parts[name] = EXPERIMENTS[name](model, run).to_json()
            except ValueError as error:
                raise RunError(f"figure interventions: {run.path}: {error}") from None
            write_json(path, parts)
    return Causal.from_json(parts)


def measurements(runs: Sequence[CapturedRun]) -> list[Measurement]:
    """Both phases of every run."""
    return [
        Measurement(
            kind="interventions",
            label=f"{run.label}: interventions, {phase}",
            path=_path(run, phase),
            finished=_kept(_path(run, phase)).keys() == EXPERIMENTS.keys(),
            make=partial(causal, run, phase),
        )
        for run in runs
        for phase in PHASES
    ]


def _path(run: CapturedRun, phase: str) -> Path:
    identity = f"{_VERSION}:{run.checkpoint_sha256}:{run.data_sha256}:{BATCHES}:{BATCH_SIZE}"
    key = hashlib.sha256(f"{identity}:{RESCUE_AFTER}".encode()).hexdigest()[:12]
    return run.path / "captures" / f"interventions-{phase}-{key}.json"


def _kept(path: Path) -> dict[str, Any]:
    """The experiments measured so far."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _windows(run: CapturedRun) -> list[tuple[Tensor, Tensor]]:
    return list(run.data.eval_batches(BATCH_SIZE, BATCHES * BATCH_SIZE))


def _ablation(model: GPT, run: CapturedRun) -> EffectTable:
    return ablation_matrix(model, _windows(run))


def _rescue(model: GPT, run: CapturedRun) -> RescueTable:
    attention = [name for name in model.site_names if name.endswith("a")]
    return rescue_matrix(model, _windows(run), sites=attention, after=RESCUE_AFTER)


def _mixers(model: GPT, run: CapturedRun) -> EffectTable:
    return mixer_matrix(model, _windows(run))


def _compression(model: GPT, run: CapturedRun) -> Compression:
    other = [run.data.train_batch(step, BATCH_SIZE, seed=0) for step in range(BATCHES)]
    return collapse_streams(model, _windows(run), calibration=other)


EXPERIMENTS: dict[str, Callable[[GPT, CapturedRun], EffectTable | RescueTable | Compression]] = {
    "ablation": _ablation,
    "rescue": _rescue,
    "mixers": _mixers,
    "compression": _compression,
}
"""The parts of :class:`Causal` by name, in the order in which they are measured."""
