"""Figure 2: which streams every site reads from and writes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy

from ..diagnostics import quantity
from . import style
from .records import Row, quantity_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Read and write shares"
DEFINITIONS = {
    "read share": "token mean of |p[s]| / sum_r |p[r]|, p = H_pre (weight, mean_of_ratios; D1)",
    "write share": "token mean of |q[s]| / sum_r |q[r]|, q = H_post (weight, mean_of_ratios; D1)",
    "effective streams": "exp(entropy) of the share (D3)",
}
SIDES: tuple[Literal["read", "write"], ...] = ("read", "write")


def draw_share(ax: Axes, run: CapturedRun, side: Literal["read", "write"]) -> Axes:
    """Stacked shares per site; black dashes mark where the edges were at initialisation."""
    trained = quantity(f"{side}_share", run.trained).numpy()
    initial = quantity(f"{side}_share", run.initial).numpy()
    names = run.trained.site_names
    places = numpy.arange(len(names))
    base = numpy.zeros(len(names))
    for stream in range(run.trained.n_streams):
        ax.bar(
            places + 0.14,
            trained[:, stream],
            width=0.56,
            bottom=base,
            color=style.stream_colour(stream),
            edgecolor="white",
            linewidth=0.5,
            label=f"s{stream}",
        )
        base = base + trained[:, stream]
    base = numpy.zeros(len(names))
    for stream in range(run.trained.n_streams):
        ax.bar(
            places - 0.32,
            initial[:, stream],
            width=0.20,
            bottom=base,
            color=style.stream_colour(stream),
            alpha=0.45,
            edgecolor="white",
            linewidth=0.4,
        )
        base = base + initial[:, stream]
        if stream < run.trained.n_streams - 1:
            ax.hlines(
                base,
                places - 0.44,
                places + 0.44,
                color=style.REFERENCE,
                lw=0.8,
                ls=(0, (2, 1.2)),
            )
    ax.set_ylim(0, 1)
    style.site_axis(ax, names)
    ax.grid(visible=False)
    return ax


def draw_effective(ax: Axes, run: CapturedRun) -> Axes:
    """Effective number of streams per site, read and write, initial values dashed."""
    n = run.trained.n_streams
    looks = {"read": ("#444444", "o", "white"), "write": ("#000000", "s", "#000000")}
    for side in SIDES:
        name = f"{side}_effective_streams"
        colour, marker, face = looks[side]
        trained = quantity(name, run.trained).numpy()
        ax.plot(
            range(len(trained)),
            trained,
            color=colour,
            marker=marker,
            mfc=face,
            label=side,
            zorder=3,
        )
    initial = numpy.stack(
        [quantity(f"{side}_effective_streams", run.initial).numpy() for side in SIDES],
        axis=1,
    )
    style.initial_line(ax, initial)
    ax.axhline(n, color=style.FAINT, lw=0.9, ls=":")
    ax.set_ylim(0.9, n + 0.12)
    style.site_axis(ax, run.trained.site_names)
    ax.grid(visible=True, axis="y")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: read shares, write shares, effective streams."""
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        for ax, side in zip(row, SIDES, strict=False):
            draw_share(ax, run, side)
            ax.set_title(f"{run.label}: {side}", fontsize=8)
        row[0].set_ylabel("share")
        draw_effective(row[2], run)
        row[2].set_title("effective streams")
        row[2].set_ylabel("streams")
    streams, labels = axes[0, 0].get_legend_handles_labels()
    lines, names = axes[0, 2].get_legend_handles_labels()
    figure.legend(
        [*streams, *lines],
        [*labels, *names],
        loc="outside lower center",
        ncols=len(labels) + 3,
    )
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """What the figure shows, as numbers; the other definitions of a share beside it."""
    result: list[Row] = []
    for run in runs:
        for side in SIDES:
            result += quantity_rows("fig2", f"{side} share", run, f"{side}_share")
            name = f"{side}_effective_streams"
            result += quantity_rows("fig2", "effective streams", run, name)
            for other in (
                f"{side}_share_ratio_of_means",
                f"{side}_signal_share",
                f"{name}_token",
            ):
                result += quantity_rows("fig2", "not drawn", run, other)
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.5 + 1.75 * len(runs)
