"""How much the inputs of neighbouring sublayers differ (2409.19606's cosine bands)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..diagnostics import Trace, composite, similarity
from . import style
from .records import Row, tensor_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Similarity of the inputs of neighbouring sublayers"
DEFINITIONS = {
    "cosine": "cos of the inputs u of site k and site k + 1, per token (D20)",
    "band": "5 % to 95 % quantile over tokens, line: median",
    "dotted": "0: directions that have nothing to do with each other",
}
QUANTILES = (0.05, 0.5, 0.95)


def adjacent_quantiles(found: Trace) -> Tensor:
    """Quantiles over tokens of the cosine of neighbouring inputs, ``[K - 1, 3]``."""
    cosine = similarity.adjacent_cosine(found.branch_in.double())
    return composite.token_quantiles(cosine, QUANTILES).cpu()


def pair_names(found: Trace) -> list[str]:
    """``L0a-L0m`` and so on."""
    names = found.site_names
    return [f"{a}-{b}" for a, b in itertools.pairwise(names)]


def draw_band(ax: Axes, run: CapturedRun) -> Axes:
    """Median and band of the trained model; the initial median dashed in its own band."""
    trained = adjacent_quantiles(run.trained_trace).numpy()
    places = range(len(trained))
    colour = style.RUN_COLOURS[2]
    ax.fill_between(places, trained[:, 0], trained[:, 2], color=colour, alpha=0.22, lw=0)
    ax.plot(places, trained[:, 1], color=colour, marker="o", label="trained, 5 to 95 %")
    initial = adjacent_quantiles(run.initial_trace).numpy()
    ax.fill_between(places, initial[:, 0], initial[:, 2], color=style.REFERENCE, alpha=0.10, lw=0)
    style.initial_line(ax, initial[:, 1])
    ax.axhline(0.0, color=style.FAINT, lw=0.9, ls=":", label="unrelated")
    style.site_axis(ax, [name.partition("-")[2] for name in pair_names(run.trained_trace)])
    ax.set_xlabel("site, compared with the one before")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A panel per run."""
    axes = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for ax, run in zip(axes, runs, strict=True):
        draw_band(ax, run)
        ax.set_title(run.label)
    axes[0].set_ylabel("cosine")
    found = [one for run in runs for one in (run.initial_trace, run.trained_trace)]
    lowest = min(float(adjacent_quantiles(one).min()) for one in found)
    axes[0].set_ylim(min(-0.1, lowest - 0.05), 1.03)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """The three quantiles of every pair."""
    result: list[Row] = []
    for run in runs:
        for phase, found in (("initial", run.initial_trace), ("trained", run.trained_trace)):
            values = adjacent_quantiles(found)
            for k, q in enumerate(QUANTILES):
                result += tensor_rows(
                    "hc-adjacent-cosine",
                    "cosine",
                    run,
                    phase,
                    f"quantile {q:g}",
                    values[:, k],
                    pair_names(found),
                )
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return max(1.2 + 2.9 * len(runs), 4.0), 2.7
