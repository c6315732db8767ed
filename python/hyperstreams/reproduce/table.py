"""The comparison table: one row per run, every diagnostic with its value at initialisation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..diagnostics import Capture, quantity
from .runs import CapturedRun


@dataclass(frozen=True)
class Column:
    """One column. ``key`` is the CSV field too; with ``initial`` there is also ``key_initial``."""

    key: str
    title: str
    meaning: str
    form: str
    initial: bool


COLUMNS = (
    Column("loss", "loss", "validation loss, nats per byte", ".4f", True),
    Column("parameters", "parameters", "all trainable parameters", ",d", False),
    Column("ms_per_step", "ms/step", "median training step, evaluation not counted", ".0f", False),
    Column("read_effective_streams", "N_eff read", "mean over sites", ".2f", True),
    Column("write_effective_streams", "N_eff write", "mean over sites", ".2f", True),
    Column(
        "read_dominance", "dominance read", "mean over sites; 0 even, 1 one stream", ".2f", True
    ),
    Column("write_dominance", "dominance write", "mean over sites", ".2f", True),
    Column(
        "off_diagonal_mass",
        "off-diagonal mass",
        "mean over sites whose mixer has an effect",
        ".4f",
        True,
    ),
)
DIAGNOSTICS = tuple(column.key for column in COLUMNS[3:])


def effective_sites(values: Tensor, *, replicated: bool) -> Tensor:
    """Per-site values without the first site's where its mixer acts on equal streams."""
    return values[1:] if replicated and values.shape[0] > 1 else values


def site_mean(name: str, capture: Capture, *, replicated: bool) -> float:
    """Mean of a per-site quantity over the sites where it means something."""
    values = quantity(name, capture)
    if name == "off_diagonal_mass":
        values = effective_sites(values, replicated=replicated)
    return values.mean().item()


def table_row(run: CapturedRun) -> dict[str, Any]:
    """The values of one run by column key; None where a plain residual has no such thing."""
    row: dict[str, Any] = {
        "run": run.label,
        "connection": run.connection,
        "seed": run.seed,
        "steps": run.loaded.step,
        "loss": run.evaluations[-1]["nats_per_byte"],
        "loss_initial": run.evaluations[0]["nats_per_byte"],
        "parameters": sum(p.numel() for p in run.loaded.model.parameters()),
        "ms_per_step": statistics.median(r["ms_per_step"] for r in run.training_records),
    }
    for name in DIAGNOSTICS:
        for key, phase in ((name, "trained"), (f"{name}_initial", "initial")):
            row[key] = (
                site_mean(name, getattr(run, phase), replicated=run.replicated)
                if run.has_streams
                else None
            )
    return row


def comparison_table(runs: Sequence[CapturedRun]) -> list[dict[str, Any]]:
    """Rows of :func:`table_row` in the order of ``runs``."""
    return [table_row(run) for run in runs]
