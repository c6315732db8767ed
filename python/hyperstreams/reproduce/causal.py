"""Interventions on a finished run, trained and at initialisation; kept with the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

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
from ..train.trainer import build_model
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

    def to_json(self) -> dict[str, Any]:
        return {name: part.to_json() for name, part in vars(self).items()}

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
    windows of the training split.
    """
    identity = f"{_VERSION}:{run.checkpoint_sha256}:{run.data_sha256}:{BATCHES}:{BATCH_SIZE}"
    key = hashlib.sha256(f"{identity}:{RESCUE_AFTER}".encode()).hexdigest()[:12]
    path = run.path / "captures" / f"interventions-{phase}-{key}.json"
    if path.exists():
        return Causal.from_json(json.loads(path.read_text(encoding="utf-8")))
    model = run.loaded.model if phase == "trained" else build_model(run.loaded.config)
    result = measure(model, run)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result.to_json()), encoding="utf-8")
    return result


def measure(model: GPT, run: CapturedRun) -> Causal:
    """The four experiments on ``model``, on the run's validation windows."""
    data = run.data
    batches = list(data.eval_batches(BATCH_SIZE, BATCHES * BATCH_SIZE))
    other = [data.train_batch(step, BATCH_SIZE, seed=0) for step in range(BATCHES)]
    try:
        ablation = ablation_matrix(model, batches)
    except ValueError as error:
        raise RunError(f"figure interventions: {run.path}: {error}") from None
    attention = [name for name in model.site_names if name.endswith("a")]
    return Causal(
        ablation=ablation,
        rescue=rescue_matrix(model, batches, sites=attention, after=RESCUE_AFTER),
        mixers=mixer_matrix(model, batches),
        compression=collapse_streams(model, batches, calibration=other),
    )
