"""Figure 8: validation loss of several seeds over the last 60 % of training."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import style
from .labels import describe
from .loss import ZOOM, series
from .records import Row
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Validation loss of several seeds"
DEFINITIONS = {
    "validation": "mean loss in nats per byte on fixed validation windows, the same for every seed",
    "mean ± std": "over seeds at each evaluation; std is the sample standard deviation",
    "initial": "loss before the first step, mean over seeds; beyond the scale of the panel",
}
AGGREGATION = "a thin line per seed; mean and sample standard deviation over the seeds of one model"


def by_model(runs: Sequence[CapturedRun]) -> dict[str, list[CapturedRun]]:
    """Seeds of one model together."""
    groups: dict[str, list[CapturedRun]] = {}
    for run in runs:
        groups.setdefault(describe(run.settings), []).append(run)
    return groups


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for one value, where there is none to see."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def late_curves(group: Sequence[CapturedRun]) -> tuple[list[int], list[list[float]]]:
    """Steps after the first 40 % that every seed was evaluated at, and each seed's losses there."""
    curves = [dict(zip(*series(run), strict=True)) for run in group]
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    steps = [step for step in common if step >= ZOOM * common[-1]]
    return steps, [[curve[step] for step in steps] for curve in curves]


def draw_curves(ax: Axes, groups: dict[str, list[CapturedRun]]) -> Axes:
    """Thin: a seed. Thick with a band: mean and standard deviation over the seeds."""
    start = []
    for k, (name, group) in enumerate(groups.items()):
        steps, curves = late_curves(group)
        colour = style.RUN_COLOURS[k % len(style.RUN_COLOURS)]
        for curve in curves:
            ax.plot(steps, curve, color=colour, lw=0.7, alpha=0.75)
        columns = list(zip(*curves, strict=True))
        mean = [statistics.mean(column) for column in columns]
        std = [spread(column) for column in columns]
        low = [m - s for m, s in zip(mean, std, strict=True)]
        high = [m + s for m, s in zip(mean, std, strict=True)]
        ax.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(steps, mean, color=colour, lw=2.2, marker="o", label=f"{name}, {len(group)} seeds")
        ax.axhline(mean[-1], color=style.FAINT, lw=0.9, ls=":")
        start += [series(run)[1][0] for run in group]
    mean_start = statistics.mean(start)
    ax.set_xlabel(f"step (at initialisation {mean_start:.2f}, above; dotted: mean at the end)")
    ax.set_ylabel("validation loss (nats per byte)")
    ax.legend(loc="upper right")
    return ax


def draw_final(ax: Axes, groups: dict[str, list[CapturedRun]]) -> Axes:
    """The last loss of every seed, named, with mean ± std beside."""
    for k, group in enumerate(groups.values()):
        losses = [series(run)[1][-1] for run in group]
        colour = style.RUN_COLOURS[k % len(style.RUN_COLOURS)]
        offset = 0.12 * k
        seeds = [run.seed + offset for run in group]
        ax.plot(seeds, losses, "o", color=colour)
        mean, std = statistics.mean(losses), spread(losses)
        ax.axhspan(mean - std, mean + std, color=colour, alpha=0.15, lw=0)
        ax.axhline(mean, color=colour, lw=1.2)
    every = sorted({run.seed for group in groups.values() for run in group})
    ax.set_xticks(every)
    ax.set_xlabel("seed")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """The curves enlarged, and the last value of every seed."""
    groups = by_model(runs)
    curves, final = figure.subplots(1, 2, width_ratios=(2.0, 1.0))
    draw_curves(curves, groups)
    curves.set_title(f"last {100 * (1 - ZOOM):.0f} % of training")
    draw_final(final, groups)
    final.set_title("last value, mean ± std")
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Every drawn evaluation, the initial one, and mean and standard deviation over seeds."""
    result: list[Row] = []

    def add(run: str, connection: str, seed: object, step: int, name: str, value: float) -> None:
        result.append(
            {
                "figure": "fig8",
                "panel": "validation",
                "run": run,
                "connection": connection,
                "seed": seed,
                "phase": "initial" if step == 0 else "trained",
                "quantity": name,
                "site": f"step {step}",
                "value": value,
            }
        )

    for name, group in by_model(runs).items():
        steps, curves = late_curves(group)
        for run, curve in zip(group, curves, strict=True):
            add(run.label, run.connection, run.seed, 0, "nats_per_byte", series(run)[1][0])
            for step, value in zip(steps, curve, strict=True):
                add(run.label, run.connection, run.seed, step, "nats_per_byte", value)
        for step, column in zip(steps, zip(*curves, strict=True), strict=True):
            add(name, group[0].connection, "", step, "mean over seeds", statistics.mean(column))
            if len(column) > 1:
                deviation = statistics.stdev(column)
                add(name, group[0].connection, "", step, "std over seeds", deviation)
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH, 2.8
