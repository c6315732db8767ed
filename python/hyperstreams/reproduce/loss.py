"""Loss curves of any runs, the plain residual among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import style
from .records import Row
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Loss curves"
DEFINITIONS = {
    "validation": "mean loss in nats per byte on fixed validation windows, the same for every run",
    "enlarged": "the same, without the first 40 % of the steps",
}
ZOOM = 0.4


def series(run: CapturedRun) -> tuple[list[int], list[float]]:
    """Steps and validation losses in nats per byte, step 0 first."""
    return (
        [record["step"] for record in run.evaluations],
        [record["nats_per_byte"] for record in run.evaluations],
    )


def draw_loss(ax: Axes, runs: Sequence[CapturedRun], *, first_step: int = 0) -> Axes:
    """Validation loss of every run from ``first_step`` on."""
    for k, run in enumerate(runs):
        steps, losses = series(run)
        kept = [index for index, step in enumerate(steps) if step >= first_step]
        ax.plot(
            [steps[index] for index in kept],
            [losses[index] for index in kept],
            color=style.RUN_COLOURS[k % len(style.RUN_COLOURS)],
            ls=style.RUN_DASHES[k % len(style.RUN_DASHES)],
            marker=style.STREAM_MARKERS[k % len(style.STREAM_MARKERS)],
            label=run.label,
        )
    ax.set_xlabel("step")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """The whole training with the loss at initialisation, and its last 60 % enlarged."""
    whole, late = figure.subplots(1, 2)
    draw_loss(whole, runs)
    start = [series(run)[1][0] for run in runs]
    whole.axhline(
        sum(start) / len(start),
        color=style.REFERENCE,
        lw=1.0,
        ls=(0, (4, 2)),
        label="at initialisation (mean of runs)",
    )
    whole.set_ylabel("validation loss (nats per byte)")
    whole.set_title("whole run")
    last = max(series(run)[0][-1] for run in runs)
    draw_loss(late, runs, first_step=int(ZOOM * last))
    late.set_title(f"from {ZOOM:.0%} of the steps, enlarged")
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Every evaluation; ``site`` holds the step."""
    return [
        {
            "figure": "loss",
            "panel": "validation",
            "run": run.label,
            "connection": run.connection,
            "seed": run.seed,
            "phase": "initial" if step == 0 else "trained",
            "quantity": "nats_per_byte",
            "site": f"step {step}",
            "value": value,
        }
        for run in runs
        for step, value in zip(*series(run), strict=True)
    ]


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 3.0
