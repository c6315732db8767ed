"""Figure 7: the token-averaged mixer at three depths, for several numbers of streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..diagnostics import Capture, metrics, quantity
from .labels import describe
from .mixers import entry, mixer_colours, mixer_norm, print_entries
from .records import Row, quantity_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Representative mixers and the number of streams"
DEFINITIONS = {
    "heat maps": "Rbar = mean over tokens of H_res; rows are destinations, columns are sources",
    "off": "off-diagonal mass 1 - trace(Rbar) / n (D6), in brackets at initialisation",
    "sites": "MLP of the first block, attention of the middle and of the last",
}


def three_sites(capture: Capture) -> tuple[str, str, str]:
    """First block's MLP, and the attention of the middle and of the last block.

    Not the first attention: with copied streams its mixer has no effect. Of two blocks the last
    MLP is the third.
    """
    blocks = len(capture.site_names) // 2
    if blocks < 3:
        return "L0m", f"L{blocks - 1}a", f"L{blocks - 1}m"
    return "L0m", f"L{blocks // 2}a", f"L{blocks - 1}a"


def ordered(runs: Sequence[CapturedRun]) -> tuple[list[str], list[list[CapturedRun]]]:
    """Models as columns, and rows of runs of equal n; a row lacks models that it has no run of."""
    models = list(dict.fromkeys(describe(run.settings) for run in runs))
    counts = sorted({run.trained.n_streams for run in runs})
    return models, [[run for run in runs if run.trained.n_streams == n] for n in counts]


def draw_site(ax: Axes, run: CapturedRun, site: str, *, fontsize: float = 6.5) -> Axes:
    """One heat map on the scale 0..1 centred on 1/n, its off-diagonal mass above it."""
    index = run.trained.site_names.index(site)
    values = run.trained.mean("h_res")[index].numpy()
    n = run.trained.n_streams
    initial = run.initial.mean("h_res")[index]
    image = ax.imshow(values, cmap=mixer_colours(), norm=mixer_norm(values, n))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    off = metrics.off_diagonal_mass(run.trained.mean("h_res")[index]).item()
    start = metrics.off_diagonal_mass(initial).item()
    ax.set_title(
        f"{site}: off {entry(off)} ({entry(start)})", fontsize=fontsize, fontweight="normal"
    )
    if n <= 2:
        print_entries(ax, image, values, fontsize=6)
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per number of streams; for every model three sites beside each other."""
    models, rows_of_runs = ordered(runs)
    gap = 0.12
    widths = [w for _ in models for w in (1.0, 1.0, 1.0, gap)][:-1]
    axes = figure.subplots(len(rows_of_runs), len(widths), squeeze=False, width_ratios=widths)
    for ax in axes[:, 3::4].flat:
        ax.axis("off")
    for place, model in enumerate(models):
        block = axes[:, 4 * place : 4 * place + 3]
        block[0, 0].text(
            0, 1.22, model, transform=block[0, 0].transAxes, fontsize=9, fontweight="bold"
        )
        for row, same_n in zip(block, rows_of_runs, strict=True):
            _draw_row(row, model, same_n)
    # White is even mixing in every row, so that one bar serves them all.
    image = next(ax.images[0] for ax in axes.flat if ax.images)
    bar = figure.colorbar(image, ax=axes, shrink=0.4, pad=0.005, fraction=0.012)
    bar.set_ticks([0, image.norm.vcenter, 1], labels=["0", "1/n", "1"])
    bar.outline.set_visible(False)
    return figure


def _draw_row(row: Sequence[Axes], model: str, same_n: Sequence[CapturedRun]) -> None:
    """Three sites of one model at one n, or a note that there is no such run."""
    run = next((one for one in same_n if describe(one.settings) == model), None)
    n = same_n[0].trained.n_streams
    if run is None:
        for ax in row:
            ax.axis("off")
        row[1].text(0.5, 0.5, f"n = {n}\nnot built", ha="center", va="center", fontsize=7)
        return
    for ax, site in zip(row, three_sites(run.trained), strict=True):
        draw_site(ax, run, site)
        ax.set_xlabel("source", fontsize=6.5, labelpad=1)
    row[0].set_ylabel(f"n = {n}\ndestination", fontsize=7)


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Every entry of the maps that are shown, and the off-diagonal mass of every site."""
    result: list[Row] = []
    for run in runs:
        sites = three_sites(run.trained)
        result += quantity_rows("fig7", "heat maps", run, "mean_mixer", sites=sites)
        result += quantity_rows("fig7", "off", run, "off_diagonal_mass")
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    counts = len({quantity("read_share", run.trained).shape[1] for run in runs})
    models = len({describe(run.settings) for run in runs})
    return 0.3 + 3.4 * models, 0.5 + 1.2 * counts
