"""What a plan costs before it is run: parameters, tokens, operations, time. All estimates."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..models import operations_table, parameter_table
from ..train import TrainConfig
from ..train.run_dir import finished_summary
from .progress import duration
from .scales import Scale

TRAINING_PASSES = 3
"""A training step's operations beside a forward pass: the backward pass is two of them."""


@dataclass(frozen=True)
class Cost:
    """One run: parameters, trained tokens, operations of the whole training."""

    parameters: int
    tokens: int
    operations: int

    def hours(self, rate: float) -> float:
        """Hours at ``rate`` operations per second."""
        return self.operations / rate / 3600


def run_cost(config: TrainConfig) -> Cost:
    """Counts from the configuration alone; nothing is allocated."""
    tokens = config.steps * config.batch_size * config.accumulation * config.model.block_size
    per_token = operations_table(config.model)["total"]
    return Cost(
        parameters=parameter_table(config.model)["total"],
        tokens=tokens,
        operations=TRAINING_PASSES * per_token * tokens,
    )


def measured_rate(configs: Sequence[TrainConfig]) -> float | None:
    """Operations per second of the finished runs among ``configs``, or None; the median."""
    rates = []
    for config in configs:
        summary = finished_summary(Path(config.run_dir()))
        if summary is not None and summary.ms_per_step_median:
            seconds = summary.ms_per_step_median / 1e3 * config.steps
            rates.append(run_cost(config).operations / seconds)
    return statistics.median(rates) if rates else None


def estimate(scale: Scale, configs: Sequence[TrainConfig], missing: Sequence[TrainConfig]) -> str:
    """One line: how many runs there are, how many are missing and how long those will take."""
    done = len(configs) - len(missing)
    if not missing:
        return f"scale {scale.name}: all {done} runs are there"
    rate = measured_rate(configs)
    source = (
        f"from the speed of the finished ones, {rate:.2g} operations/s"
        if rate is not None
        else f"at an assumed {scale.rate:.2g} operations/s of {scale.machine}"
    )
    costs = [run_cost(config) for config in missing]
    seconds = sum(cost.operations for cost in costs) / (rate or scale.rate)
    return (
        f"scale {scale.name}: {len(missing)} runs to train, {done} there; "
        f"{sum(cost.tokens for cost in costs):,} tokens, "
        f"{sum(cost.operations for cost in costs):.2e} operations, "
        f"estimated {duration(seconds)} of training ({source}); evaluation, captures, coders, "
        "interventions and drawing come on top"
    )


def cost_table(scale: Scale, configs: Sequence[TrainConfig], labels: Sequence[str]) -> str:
    """A line per run and a total: parameters, tokens, operations, estimated hours."""
    costs = [run_cost(config) for config in configs]
    header = ("run", "parameters", "tokens", "operations", "hours (estimate)")
    body = [
        (
            label,
            f"{cost.parameters:,}",
            f"{cost.tokens:,}",
            f"{cost.operations:.2e}",
            f"{cost.hours(scale.rate):.2f}",
        )
        for label, cost in zip(labels, costs, strict=True)
    ]
    total = (
        "total",
        "",
        f"{sum(cost.tokens for cost in costs):,}",
        f"{sum(cost.operations for cost in costs):.2e}",
        f"{sum(cost.hours(scale.rate) for cost in costs):.1f}",
    )
    lines = [header, *body, total]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    text = [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    note = (
        f"Hours: operations / {scale.rate:.1e} per second, an assumption about {scale.machine}, "
        "not a measurement. Operations: 3 x the forward pass."
    )
    return "\n".join([*text, note])
