"""All verdicts of a set of runs: about every checkpoint, and between models."""

from __future__ import annotations

from collections.abc import Sequence

from .runs import CapturedRun, describe
from .table import site_mean
from .verdicts import Verdict, capture_verdicts, compare_seeds


def group_by_model(runs: Sequence[CapturedRun]) -> dict[str, list[CapturedRun]]:
    """Runs by the name of their model, in order; one group holds the seeds of one model."""
    groups: dict[str, list[CapturedRun]] = {}
    for run in runs:
        groups.setdefault(describe(run.settings), []).append(run)
    return groups


def run_verdicts(runs: Sequence[CapturedRun]) -> list[Verdict]:
    """Verdicts about each checkpoint with streams, run by run."""
    return [
        verdict
        for run in runs
        if run.has_streams
        for verdict in capture_verdicts(
            run.label, run.trained, run.initial, replicated=run.replicated
        )
    ]


def model_verdicts(runs: Sequence[CapturedRun]) -> list[Verdict]:
    """Every model with streams against the residual, and every expansion against replication."""
    groups = group_by_model(runs)
    losses = {
        name: {run.seed: float(run.evaluations[-1]["nats_per_byte"]) for run in group}
        for name, group in groups.items()
    }
    what = "validation loss (nats per byte)"
    plain_runs = (name for name, group in groups.items() if group[0].connection == "residual")
    baseline = next(plain_runs, None)
    verdicts = []
    if baseline is not None:
        verdicts += [
            compare_seeds(what, (name, losses[name]), (baseline, losses[baseline]))
            for name, group in groups.items()
            if group[0].has_streams
        ]
    for name, group in groups.items():
        plain = next(
            (
                other
                for other, members in groups.items()
                if members[0].connection == group[0].connection and members[0].replicated
            ),
            None,
        )
        if not group[0].has_streams or group[0].replicated or plain is None:
            continue
        verdicts.append(compare_seeds(what, (name, losses[name]), (plain, losses[plain])))
        for side in ("read", "write"):
            measure = f"{side}_dominance"
            ours, theirs = (
                {r.seed: site_mean(measure, r.trained, replicated=r.replicated) for r in members}
                for members in (group, groups[plain])
            )
            verdicts.append(
                compare_seeds(f"{side} dominance", (name, ours), (plain, theirs), form=".3f")
            )
    return verdicts
