"""The interventions figure: what streams and mixers are needed for, by taking them away."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy
import torch

from . import plans, style
from .causal import PHASES, Causal, causal, measurements
from .mixers import mixer_colours
from .records import Row
from .runs import CapturedRun
from .spec import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Interventions: ablate, rescue, replace, collapse"
DEFINITIONS = {
    "ablation": "KL(clean || ablated) in nats per token; one stream set to zero in the state "
    "before a site, coefficients frozen at their clean values (D21)",
    "rescue": "1 - KL_rescued / KL_ablated; stream i zeroed before an attention site, the clean "
    "stream j restored two sites later, KL summed over attention sites (D22)",
    "mixer replacement": "loss with the mixers of a group of sites replaced, minus clean loss, "
    "coefficients computed live (D23); top m keeps the m largest sources of each destination",
    "collapse": "loss above that of the same model with all coefficients frozen at their token "
    "mean, with the state projected to m streams (B4): balanced truncation, or the m streams that "
    "are written to most",
}
GROUP_COLOURS = {"early": "#B9B9B9", "late": "#767676", "all": "#2B2B2B"}
METHODS = {"balanced": ("#1B9AAA", "o"), "dominant": ("#A23B72", "s")}
SMALLEST = 1e-4
"""Nats per token: the colour scale does not resolve less."""


def short(value: float) -> str:
    """Two significant digits in few characters: ``.012``, ``1.3``, ``2e-4``, ``-.31``."""
    if value != 0 and abs(value) < 9.5e-3:
        mantissa, _, exponent = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 9.95:
        return f"{value:.0f}"
    text = f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


def draw_ablation(ax: Axes, trained: Causal, initial: Causal) -> Axes:
    """D21: streams by state, logarithmic colours; on the colour bar the mean at initialisation."""
    values = trained.ablation.mean().numpy()
    first = initial.ablation.mean().numpy()
    mean = max(float(first.mean()), SMALLEST)
    top = max(float(values.max()), float(first.max()), 10 * SMALLEST)
    low = max(min(float(values.min()), mean) / 1.6, SMALLEST)
    norm = import_module("matplotlib.colors").LogNorm(low, top)
    image = ax.imshow(numpy.maximum(values, SMALLEST), norm=norm, cmap="cividis", aspect="auto")
    small = values.shape[1] > 12
    if not small:
        for i, k in numpy.ndindex(values.shape):
            colour = "black" if norm(max(values[i, k], SMALLEST)) > 0.55 else "white"
            ax.text(k, i, short(values[i, k]), ha="center", va="center", fontsize=5.6, color=colour)
    _streams(ax.yaxis, trained.ablation.axes["streams"])
    states = ["out" if name == "readout" else name for name in trained.ablation.axes["state"]]
    style.site_axis(ax, states, label="state before site")
    ax.set_xlim(-0.5, len(states) - 0.5)
    ax.grid(visible=False)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, pad=0.01, fraction=0.045)
    bar.outline.set_visible(False)
    bar.ax.axhline(mean, color="white", lw=2.6)
    bar.ax.axhline(mean, color=style.REFERENCE, lw=1.2)
    bar.ax.plot([-0.35], [mean], ">", ms=5, color=style.REFERENCE, clip_on=False)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("KL, nats per token", fontsize=6.5)
    return ax


def draw_rescue(ax: Axes, trained: Causal, initial: Causal) -> Axes:
    """D22 over all states: recovery, and in brackets at initialisation; white is no recovery."""
    values, first = (c.rescue.overall.numpy() for c in (trained, initial))
    norm = import_module("matplotlib.colors").TwoSlopeNorm(vmin=-1, vcenter=0, vmax=1)
    ax.imshow(numpy.clip(values, -1, 1), norm=norm, cmap=mixer_colours())
    n = len(values)
    if n <= 4:
        for i, j in numpy.ndindex(values.shape):
            text = f"{short(values[i, j])}\n({short(first[i, j])})"
            colour = "white" if abs(values[i, j]) > 0.8 else "black"
            ax.text(
                j, i, text, ha="center", va="center", fontsize=5.4, linespacing=1.25, color=colour
            )
    streams = trained.rescue.ablated.axes["ablated"]
    _streams(ax.yaxis, streams)
    _streams(ax.xaxis, streams)
    ax.set_ylabel("ablated", labelpad=2)
    ax.set_xlabel("restored", labelpad=2)
    ax.grid(visible=False)
    return ax


def draw_mixers(ax: Axes, trained: Causal, initial: Causal) -> Axes:
    """D23: bars of added loss for each replacement and group; dashes at initialisation."""
    names, groups = trained.mixers.axes["replacement"], trained.mixers.axes["group"]
    values, errors = (f("delta_loss").numpy() for f in (_mean(trained), _error(trained)))
    first = initial.mixers.mean("delta_loss").numpy()
    width = 0.8 / len(groups)
    for g, group in enumerate(groups):
        places = numpy.arange(len(names)) + (g - (len(groups) - 1) / 2) * width
        ax.bar(
            places,
            values[:, g],
            width=0.9 * width,
            yerr=errors[:, g],
            color=GROUP_COLOURS.get(group, style.FAINT),
            error_kw={"lw": 0.7, "ecolor": "#C0392B"},
            label=f"{group} sites",
        )
        ax.hlines(
            first[:, g],
            places - width / 2,
            places + width / 2,
            color=style.REFERENCE,
            lw=1.0,
            ls=(0, (2, 1)),
            zorder=4,
        )
    ax.axhline(0, color=style.FAINT, lw=0.9, ls=":")
    _symmetric_log(ax, numpy.concatenate([values + errors, values - errors, first]))
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    ax.tick_params(axis="x", labelsize=6.4, length=0)
    ax.set_ylabel("added loss, nats per token")
    ax.grid(visible=False, axis="x")
    return ax


def draw_collapse(ax: Axes, trained: Causal, initial: Causal) -> Axes:
    """B4: added loss with m streams kept; dashed at initialisation, dotted at 0."""
    table, first = trained.compression.added_loss.numpy(), initial.compression.added_loss.numpy()
    counts = numpy.arange(1, table.shape[1] + 1)
    for k, method in enumerate(trained.compression.table.axes["method"]):
        colour, marker = METHODS[method]
        ax.plot(counts, table[k], color=colour, marker=marker, label=method, zorder=3)
        ax.plot(counts, first[k], color=colour, lw=1.0, ls=(0, (4, 2)), zorder=2)
    ax.axhline(0, color=style.FAINT, lw=0.9, ls=":")
    _symmetric_log(ax, numpy.concatenate([table.ravel(), first.ravel()]))
    ax.set_xticks(counts if len(counts) <= 8 else counts[:: len(counts) // 4])
    frozen = trained.compression.frozen.mean("delta_loss").item()
    ax.set_xlabel(f"streams kept, m\n(fixed coefficients alone add {short(frozen)})")
    ax.legend(loc="upper right", fontsize=6.4, handlelength=1.4)
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """Two rows per run: ablation and rescue; mixer replacement and collapse to m streams."""
    axes = figure.subplots(2 * len(runs), 2, squeeze=False, width_ratios=[2.1, 1])
    for index, run in enumerate(runs):
        initial, trained = (causal(run, phase) for phase in PHASES)
        panels = axes[2 * index : 2 * index + 2].ravel()
        draws = (draw_ablation, draw_rescue, draw_mixers, draw_collapse)
        titles = ("one stream zeroed", "recovery", "mixers replaced", "collapsed to m streams")
        for ax, function, title in zip(panels, draws, titles, strict=True):
            function(ax, trained, initial)
            ax.set_title(title)
        panels[0].set_title(f"{run.label}: {titles[0]}")
        panels[2].set_title(f"{run.label}: {titles[2]}")
    from matplotlib.lines import Line2D

    handles, labels = axes[1, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=style.REFERENCE, lw=1.0, ls=(0, (4, 2))))
    handles.append(Line2D([], [], color=style.FAINT, lw=0.9, ls=":"))
    labels += ["at initialisation (of KL: arrow)", "no change"]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """What the figure shows, as numbers: KL, added loss and agreement of every cell."""
    result: list[Row] = []
    for run, phase in itertools.product(runs, PHASES):
        found = causal(run, phase)
        head = {
            "figure": "interventions",
            "run": run.label,
            "connection": run.connection,
            "seed": run.seed,
            "phase": phase,
        }
        for panel, table, site, stream, other in (
            ("ablation", found.ablation, "state", "streams", None),
            ("rescue: ablated", found.rescue.ablated, "state", "ablated", None),
            ("rescue: rescued", found.rescue.rescued, "state", "ablated", "rescued"),
            ("mixer replacement", found.mixers, "group", None, "replacement"),
            ("collapse", found.compression.table, None, "streams", "method"),
            ("collapse: all streams", found.compression.frozen, None, None, "method"),
        ):
            for row in table.rows():
                for measure in ("kl", "delta_loss", "top1"):
                    result.append(
                        {
                            **head,
                            "panel": panel,
                            "quantity": measure,
                            "site": row[site] if site else "",
                            "stream": str(row[stream]).removeprefix("s") if stream else "",
                            "other": str(row[other]).removeprefix("s")
                            if other == "rescued"
                            else row[other]
                            if other
                            else "",
                            "value": row[measure],
                            "standard_error": row[f"{measure}_standard_error"],
                        }
                    )
        result += _derived(head, found)
    return result


def _derived(head: Row, found: Causal) -> list[Row]:
    """Recovery over all states, and loss added by the collapse: drawn, but no measure of a cell."""
    result: list[Row] = []
    for (i, j), value in numpy.ndenumerate(found.rescue.overall.numpy()):
        place = {"site": "all", "stream": i, "other": j, "value": float(value)}
        result.append({**head, "panel": "rescue", "quantity": "recovery", **place})
    methods = found.compression.table.axes["method"]
    for (k, m), value in numpy.ndenumerate(found.compression.added_loss.numpy()):
        place = {"stream": m + 1, "other": methods[k], "value": float(value)}
        result.append({**head, "panel": "collapse", "quantity": "added_loss", **place})
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.5 + 4.1 * len(runs)


def _mean(found: Causal) -> Any:
    return found.mixers.mean


def _error(found: Causal) -> Any:
    return lambda measure: torch.nan_to_num(found.mixers.standard_error(measure))


def _streams(axis: Any, names: Sequence[str]) -> None:
    """Streams along an axis, each name in the stream's colour."""
    axis.set_ticks(range(len(names)), list(names))
    axis.set_tick_params(length=0)
    for stream, label in enumerate(axis.get_ticklabels()):
        label.set_color(style.stream_colour(stream))
        label.set_fontweight("bold")


def _symmetric_log(ax: Axes, values: Any) -> None:
    """Logarithmic to both sides, linear near 0, with room above and below."""
    largest = max(float(numpy.abs(values).max()), 10 * SMALLEST)
    # A power of ten, so that no tick falls between it and 0.
    threshold = 10.0 ** (math.ceil(math.log10(largest)) - 3)
    ax.set_yscale("symlog", linthresh=threshold, linscale=0.8)
    low, high = float(values.min()), float(values.max())
    ax.set_ylim(min(1.6 * low, -threshold / 2), max(1.8 * high, threshold))


SPEC = FigureSpec(
    "interventions",
    TITLE,
    "this package (ablate and rescue after arXiv 2603.14833, mixer replacement after 2609.05309)",
    "Top left: how much the output changes when one stream (row) is zeroed before one site "
    "(column), everything still being read, mixed and written as before; the arrow at the "
    "colour bar is the mean at initialisation. Top right: how much of the change is undone when a "
    "clean stream (column) is restored two sites after another (row) was zeroed; 1 is all, white "
    "none, in brackets at initialisation. Bottom left: loss added when mixers are replaced. Bottom "
    "right: loss added when the state is squeezed through m streams, beyond what fixing all "
    "coefficients at their token mean adds already. Axes of added loss are logarithmic away from "
    "0. A stream that can be removed at no cost may be redundant or unused.",
    DEFINITIONS,
    {
        "ablation": "zero",
        "routing": "ablation and rescue frozen, mixer replacement live",
        "rescued": "two sites later",
        "coefficients": "collapse: token mean over training windows",
        "windows": "16 of the validation split",
    },
    draw,
    rows,
    size,
    plans.baseline_and_lss,
    measurements=measurements,
)
