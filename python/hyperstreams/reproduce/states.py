"""Figures 3 and 4: the streams as vectors. Norms and cosines; curvature along the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..diagnostics import QUANTITIES, quantity
from . import style
from .records import Row, quantity_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMBALANCE_TITLE = "Representation-level imbalance"
IMBALANCE_PANELS = ("norm_share", "mean_cosine", "norm")
CURVATURE_TITLE = "Curvature of the token trajectory"
CURVATURE_PANELS = ("curvature", "position_curvature")
PANEL_TITLES = {
    "norm_share": "norm share",
    "mean_cosine": "mean cosine between streams",
    "norm": "L2 norm",
    "curvature": "difference definition",
    "position_curvature": "position definition",
}


def definitions(panels: Sequence[str]) -> dict[str, str]:
    """Definition of each panel's quantity."""
    return {PANEL_TITLES[name]: QUANTITIES[name].definition for name in panels}


def dominant_stream(run: CapturedRun) -> int:
    """The stream with the largest write share, averaged over sites."""
    return int(quantity("write_share", run.trained).mean(dim=0).argmax())


def draw_streams(ax: Axes, run: CapturedRun, name: str) -> Axes:
    """A line per stream over the states; the value at initialisation dashed with its range."""
    trained = quantity(name, run.trained).numpy()
    style.initial_line(ax, quantity(name, run.initial).numpy())
    if trained.ndim == 1:
        ax.plot(range(len(trained)), trained, color=style.INK, marker="o", label="all pairs")
    else:
        leader = dominant_stream(run)
        for stream in range(trained.shape[1]):
            ax.plot(
                range(len(trained)),
                trained[:, stream],
                color=style.stream_colour(stream),
                marker=style.stream_marker(stream),
                lw=2.4 if stream == leader else 1.3,
                label=f"s{stream}",
                zorder=3,
            )
    names = run.trained.state_names
    style.site_axis(ax, [*names[:-1], "out"], label="state before site")
    ax.grid(visible=True, axis="y")
    return ax


def draw_imbalance(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """Figure 3, a row per run: norm share, mean cosine, L2 norm."""
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        for ax, name in zip(row, IMBALANCE_PANELS, strict=True):
            draw_streams(ax, run, name)
            ax.set_title(PANEL_TITLES[name])
        n = run.trained.n_streams
        row[0].axhline(1 / n, color=style.FAINT, lw=0.9, ls=":")
        row[0].set_ylim(bottom=0)
        low = min(float(quantity("mean_cosine", c).min()) for c in (run.initial, run.trained))
        row[1].set_ylim(min(0.0, low - 0.05), 1.05)
        row[2].set_ylim(bottom=0)
        row[0].set_title(f"{run.label}: norm share")
    _legend(figure, axes[0])
    return figure


def draw_curvature(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """Figure 4, a row per run: curvature by differences and by positions, in degrees."""
    axes = figure.subplots(len(runs), 2, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        for ax, name, null in zip(row, CURVATURE_PANELS, (120.0, 90.0), strict=True):
            draw_streams(ax, run, name)
            ax.set_title(PANEL_TITLES[name])
            ax.axhline(null, color=style.FAINT, lw=0.9, ls=":", label="independent tokens")
        row[0].set_ylabel("angle (degrees)")
        row[0].set_title(f"{run.label}: {PANEL_TITLES['curvature']}")
    _legend(figure, axes[0])
    return figure


def _legend(figure: Figure, row: Sequence[Axes]) -> None:
    """One legend for all panels: the streams, then the other lines."""
    known: dict[str, Any] = {}
    for ax in row:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    labels = sorted(known, key=lambda label: not label.startswith("s"))
    handles = [known[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def imbalance_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Figure 3 as numbers, with the RMS norm and the differential energy beside it."""
    return _rows("fig3", runs, IMBALANCE_PANELS, ("rms_norm", "differential_energy"))


def curvature_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Figure 4 as numbers."""
    return _rows("fig4", runs, CURVATURE_PANELS, ())


def _rows(
    figure: str,
    runs: Sequence[CapturedRun],
    drawn: Sequence[str],
    others: Sequence[str],
) -> list[Row]:
    result: list[Row] = []
    for run in runs:
        for name in drawn:
            result += quantity_rows(figure, PANEL_TITLES[name], run, name)
        for name in others:
            result += quantity_rows(figure, "not drawn", run, name)
    return result


def imbalance_size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.5 + 1.75 * len(runs)


def curvature_size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.5 + 1.75 * len(runs)
