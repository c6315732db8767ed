"""One picture of a comparison: loss per seed, time per step and use of streams per connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ComparisonRow = Mapping[str, Any]


def draw_losses(ax: Axes, rows: Sequence[ComparisonRow]) -> Axes:
    """Validation loss of every seed, and the mean; dashed: the mean of the first row."""
    for place, row in enumerate(rows):
        losses = row["losses"]
        ax.plot(losses, [place] * len(losses), "o", ms=3, mfc="none", color=style.FAINT)
        ax.plot(row["loss_mean"], place, "|", ms=9, mew=2, color=style.STREAM_COLOURS[0])
    ax.axvline(rows[0]["loss_mean"], color=style.REFERENCE, lw=0.8, ls=(0, (4, 2)))
    ax.set_xlabel("validation loss (nats per token)")
    return ax


def draw_times(ax: Axes, rows: Sequence[ComparisonRow]) -> Axes:
    """Median time of a training step; dashed: that of the first row."""
    times = [row["ms_per_step"] for row in rows]
    ax.barh(range(len(rows)), times, height=0.6, color=style.STREAM_COLOURS[2])
    ax.axvline(times[0], color=style.REFERENCE, lw=0.8, ls=(0, (4, 2)))
    ax.set_xlabel("ms per step")
    return ax


def draw_effective_streams(ax: Axes, rows: Sequence[ComparisonRow]) -> Axes:
    """Effective number of streams that sites read and write, the mean over sites and seeds."""
    for key, marker, label in (
        ("read_effective_streams", "o", "read"),
        ("write_effective_streams", "s", "write"),
    ):
        points = [(row[key], k) for k, row in enumerate(rows) if row.get(key) is not None]
        face = "white" if label == "read" else style.INK
        ax.plot(
            [value for value, _ in points],
            [place for _, place in points],
            marker,
            ms=4,
            mfc=face,
            mec=style.INK,
            label=label,
        )
        starts = [
            (row[f"{key}_initial"], k)
            for k, row in enumerate(rows)
            if row.get(f"{key}_initial") is not None
        ]
        ax.plot(
            [value for value, _ in starts],
            [place for _, place in starts],
            "|",
            ms=8,
            color=style.REFERENCE,
            label="at initialisation" if label == "write" else None,
        )
    ax.set_xlabel("effective streams")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=0.8)
    return ax


def draw(figure: Figure, rows: Sequence[ComparisonRow]) -> Figure:
    """Three panels beside each other, one line per connection, the first row on top."""
    panels = figure.subplots(1, 3, sharey=True, width_ratios=(1.5, 1.0, 1.0))
    for ax, panel in zip(panels, (draw_losses, draw_times, draw_effective_streams), strict=True):
        panel(ax, rows)
        ax.grid(visible=True, axis="y")
    panels[0].set_yticks(range(len(rows)), [row["connection"] for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def save_picture(rows: Sequence[ComparisonRow], out: str | Path) -> Path:
    """``compare.png`` and ``compare.pdf`` in ``out``, beside the table's numbers."""
    path = Path(out) / "compare.png"
    with style.house_style():
        figure = draw(style.new_figure(style.COLUMN_WIDTH, 1.0 + 0.17 * len(rows)), rows)
        figure.savefig(path, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    return path
