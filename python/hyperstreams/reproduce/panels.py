"""Panels that several figures are made of: a line per stream over depth, with its references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..diagnostics import quantity
from . import style
from .records import Row, quantity_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

USAGE = ("read_share", "write_share", "norm")
USAGE_TITLES = {"read_share": "read share", "write_share": "write share", "norm": "L2 norm"}
USAGE_DEFINITIONS = {
    "read share": "token mean of |p[s]| / sum_r |p[r]|, p = H_pre (weight, mean_of_ratios; D1)",
    "write share": "token mean of |q[s]| / sum_r |q[r]|, q = H_post (weight, mean_of_ratios; D1)",
    "L2 norm": "token mean of the L2 norm of each stream, before each site and at the readout "
    "(D14)",
    "dashed": "initialisation: of shares the largest at each site, of norms the mean stream",
    "dotted": "shares: 1/n, even use",
}
MARKED_STREAMS = 8
"""Up to this many streams lines carry markers; more are thin lines and a thick leader."""


def leader(run: CapturedRun) -> int:
    """The stream with the largest write share, averaged over sites."""
    return int(quantity("write_share", run.trained).mean(dim=0).argmax())


def draw_over_depth(ax: Axes, run: CapturedRun, name: str) -> Axes:
    """One of ``USAGE`` over the sites: a line per stream, the run's leader thick."""
    trained = quantity(name, run.trained).numpy()
    initial = quantity(name, run.initial).numpy()
    n, first = trained.shape[1], leader(run)
    for stream in range(n):
        ax.plot(
            range(len(trained)),
            trained[:, stream],
            color=style.stream_colour(stream),
            marker=style.stream_marker(stream) if n <= MARKED_STREAMS else None,
            ms=2.8,
            lw=2.2 if stream == first else (1.0 if n <= MARKED_STREAMS else 0.7),
            zorder=4 if stream == first else 3,
        )
    if name == "norm":
        style.initial_line(ax, initial)
        ax.set_ylim(bottom=0)
        names = [*run.trained.site_names, "out"]
    else:
        style.initial_line(ax, initial.max(axis=1))
        ax.axhline(1 / n, color=style.FAINT, lw=0.9, ls=":")
        ax.set_ylim(0, 1)
        names = list(run.trained.site_names)
    style.site_axis(ax, names)
    ax.grid(visible=True, axis="y")
    return ax


def draw_usage_grid(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: read share, write share, L2 norm."""
    axes = figure.subplots(len(runs), len(USAGE), squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        for ax, name in zip(row, USAGE, strict=True):
            draw_over_depth(ax, run, name)
            ax.set_title(USAGE_TITLES[name], fontsize=7.5)
            if row is not axes[-1]:
                ax.set_xlabel("")
        row[0].set_title(f"{run.label}: {USAGE_TITLES['read_share']}", fontsize=7.5)
    stream_legend(figure, max(run.trained.n_streams for run in runs))
    return figure


def stream_legend(figure: Figure, n: int, **extra: Any) -> None:
    """One legend under everything: streams by colour and marker, then the reference lines."""
    from matplotlib.lines import Line2D

    shown = min(n, len(style.STREAM_COLOURS))
    handles = [
        Line2D([], [], color=style.stream_colour(s), marker=style.stream_marker(s), ms=3.6)
        for s in range(shown)
    ]
    labels = [f"s{s}" for s in range(shown)]
    if n > shown:
        labels[-1] += ", then again"
    handles.append(Line2D([], [], color=style.REFERENCE, lw=1.0, ls=(0, (4, 2))))
    handles.append(Line2D([], [], color=style.FAINT, lw=0.9, ls=":"))
    labels += ["at initialisation", "even use"]
    for label, handle in extra.items():
        handles.append(handle)
        labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 9))


def usage_rows(figure: str, runs: Sequence[CapturedRun]) -> list[Row]:
    """The numbers of :func:`draw_usage_grid`; effective streams and dominance beside them."""
    result: list[Row] = []
    for run in runs:
        for name in USAGE:
            result += quantity_rows(figure, USAGE_TITLES[name], run, name)
        for side in ("read", "write"):
            for what in ("effective_streams", "dominance"):
                result += quantity_rows(figure, "not drawn", run, f"{side}_{what}")
    return result


def usage_size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.7 + 1.25 * len(runs)
