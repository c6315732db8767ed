"""Who reads whom: unfolded contributions, their patterns, and the ledger of each stream."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from ..diagnostics import Trace, ledger, patterns
from . import style
from .mixers import print_entries
from .records import Row, tensor_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

UNFOLDED_TITLE = "Unfolded contributions: who reads whose output"
UNFOLDED_DEFINITIONS = {
    "c[i, j]": "weight of writer j (the embedding e, or a site's output) in the input of site i; "
    "last row: in the mean of the streams before the readout (the norm there does not see whether "
    "it is the mean or the sum); token mean (D12)",
}
PATTERNS_TITLE = "Patterns in the unfolded contributions"
PATTERNS_DEFINITIONS = {
    "decay": "mean |c| at each distance (1: the site just before), without the embedding's column",
    "embedding": "share of the embedding in the absolute weights of each row (D12p)",
    "coupling": "|c| of the site just before / largest |c| of the row; parallel below 0.1 with "
    "similar rows (D12p)",
    "plain residual": "c = 1 everywhere: decay flat at 1, embedding 1 / (i + 1), coupling 1",
}
LEDGER_TITLE = "Stream ledger: what each stream holds at the readout"
LEDGER_DEFINITIONS = {
    "C[s, j]": "weight of writer j in stream s before the readout, X = C Y; token mean (D11)",
    "e": "the embedding; with streams that start scaled, the sum over the starts",
}


LARGE = 20.0
"""Beyond this factor weights are shown on a logarithmic scale, linear between -1 and 1."""


def start_of(run: CapturedRun, found: Trace) -> Tensor | None:
    """None where streams start as copies; else each stream is a start of its own."""
    return (
        None
        if run.replicated
        else torch.eye(found.n_streams, dtype=torch.float64).to(found.h_res.device)
    )


def composition(run: CapturedRun, found: Trace) -> Tensor:
    """The per-token ledger with the embedding as column 0, ``[K + 1, B, T, n, K + 1]``."""
    start = start_of(run, found)
    c = ledger.ledger(found.h_res.double(), found.h_post.double(), start=start)
    return ledger.merge_starts(c, 1 if start is None else found.n_streams)


def contributions(run: CapturedRun, found: Trace) -> tuple[Tensor, Tensor]:
    """Token mean and standard deviation of ``c``, both ``[K + 1, K + 1]``."""
    mean = torch.full((found.n_streams,), 1 / found.n_streams, dtype=torch.float64)
    weights = mean.to(found.h_pre.device)
    c = ledger.contributions(found.h_pre.double(), composition(run, found), readout=weights)
    c = c.flatten(1, -2).cpu()
    return c.mean(dim=1), c.std(dim=1)


def held(run: CapturedRun, found: Trace) -> Tensor:
    """Token mean of the ledger at the readout, ``[n, K + 1]``."""
    return composition(run, found)[-1].flatten(0, -3).mean(dim=0).cpu()


def phases(run: CapturedRun) -> tuple[tuple[str, Trace], tuple[str, Trace]]:
    """Initial, then trained."""
    return ("initial", run.initial_trace), ("trained", run.trained_trace)


def draw_weights(ax: Axes, values: Any, columns: Sequence[str], limit: float) -> Any:
    """A heat map of signed weights around 0, what cannot be written yet left blank."""
    colours = style.require_matplotlib().colormaps["RdBu_r"]
    kinds = import_module("matplotlib.colors")
    norm = (
        kinds.Normalize(-limit, limit)
        if limit <= LARGE
        else kinds.SymLogNorm(linthresh=1.0, vmin=-limit, vmax=limit)
    )
    image = ax.imshow(values, cmap=colours, norm=norm, aspect="auto")
    every = max(len(columns) // 12, 1)
    places = range(0, len(columns), every)
    ax.set_xticks(places, [columns[k] for k in places], rotation=90, fontsize=6)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, pad=2)
    return image


def weight_bar(figure: Figure, image: AxesImage, row: Any, label: str) -> None:
    """The colour scale of a row of panels, with a line at weight 1."""
    bar = figure.colorbar(image, ax=row, pad=0.01, fraction=0.03)
    bar.ax.axhline(1.0, color=style.REFERENCE, lw=1.2)
    bar.set_label(label, fontsize=6.5)
    bar.outline.set_visible(False)


def draw_unfolded(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: contributions at initialisation and trained, on one colour scale."""
    axes = figure.subplots(len(runs), 2, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        sites = list(run.trained_trace.site_names)
        maps = [contributions(run, found)[0] for _, found in phases(run)]
        limit = float(torch.stack(maps).abs().max())
        above = torch.ones_like(maps[0], dtype=torch.bool).triu(1)
        for ax, values, phase in zip(row, maps, ("initial", "trained"), strict=True):
            shown = values.masked_fill(above, torch.nan).numpy()
            image = draw_weights(ax, shown, ["e", *sites], limit)
            if len(sites) <= 10:
                print_entries(ax, image, shown, fontsize=5.2)
            every = max(len(sites) // 12, 1)
            places = list(range(0, len(sites) + 1, every))
            names = [*sites, "out"]
            ax.set_yticks(places, [names[k] for k in places], fontsize=6)
            ax.set_title(f"{run.label}: {phase}")
            ax.set_xlabel("written by")
        row[0].set_ylabel("read by")
        weight_bar(figure, image, row, "weight (line: plain residual, 1)")
    return figure


def unfolded_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """``c`` and its deviation over tokens: ``stream`` is the column, 0 the embedding."""
    result: list[Row] = []
    for run in runs:
        for phase, found in phases(run):
            names = [*found.site_names, "readout"]
            for name, values in zip(
                ("contribution", "std over tokens"), contributions(run, found), strict=True
            ):
                result += tensor_rows(
                    "hc-unfolded", "c[i, j]; stream = writer", run, phase, name, values, names
                )
    return result


def measured_patterns(c: Tensor) -> dict[str, Tensor]:
    """The three curves of the patterns figure."""
    return {
        "decay": patterns.by_distance(c),
        "embedding": patterns.bottom_mass(c),
        "coupling": patterns.parallel_blocks(c).coupling,
    }


def summary_line(c: Tensor) -> str:
    """What the detectors say, in words."""
    shape, blocks = patterns.lambda_pattern(c), patterns.parallel_blocks(c)
    found = int(blocks.detected.sum())
    return (
        f"decay {shape.decay:.2f} per site, excess at the bottom {shape.bottom_excess:.2f}: "
        f"{'a' if shape.detected else 'no'} Lambda; parallel sites {found}; embedding in the "
        f"readout {patterns.readout_embedding_weight(c):.2f}"
    )


def draw_patterns(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: decay with distance, embedding's share, coupling of neighbours."""
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        start, c = (contributions(run, found)[0] for _, found in phases(run))
        plain = measured_patterns(torch.ones_like(c).tril())
        initial, trained = measured_patterns(start), measured_patterns(c)
        sites = list(run.trained_trace.site_names)
        for ax, name in zip(row, trained, strict=True):
            values = trained[name].numpy()
            ax.plot(range(len(values)), values, color=style.INK, marker="o", label="trained")
            style.initial_line(ax, initial[name].numpy())
            flat = numpy.asarray(plain[name].numpy())
            ax.plot(range(len(flat)), flat, color=style.FAINT, lw=0.9, ls=":", label="residual")
            drawn = numpy.concatenate([values, flat])
            if drawn.min() > 0 and drawn.max() > LARGE * drawn.min() and name == "decay":
                ax.set_yscale("log")
            else:
                ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
        distances = [str(k + 1) for k in range(len(trained["decay"]))]
        style.site_axis(row[0], distances, label="distance (sites back)")
        style.site_axis(row[1], [*sites, "out"], label="read by")
        style.site_axis(row[2], sites[1:], label="read by")
        row[2].axhline(0.1, color="#A23B72", lw=0.8, label="parallel below")
        row[0].set_title(f"{run.label}: mean |weight|", pad=15)
        row[1].set_title("share of the embedding", pad=15)
        row[2].set_title("coupling to the site before", pad=15)
        # Between the titles and the panels, over all three of them.
        note = row[0].annotate(
            summary_line(c),
            (0, 1),
            xytext=(0, 4),
            textcoords="offset points",
            xycoords="axes fraction",
            fontsize=6.5,
            color="#555555",
        )
        note.set_in_layout(False)
    handles, labels = axes[0, 2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def patterns_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """The curves and the detectors' numbers."""
    result: list[Row] = []
    for run in runs:
        for phase, found in phases(run):
            c = contributions(run, found)[0]
            names = [*found.site_names, "readout"]
            curves = measured_patterns(c)
            distances = [f"distance {k + 1}" for k in range(len(curves["decay"]))]
            for name, values, rows in (
                ("decay", curves["decay"], distances),
                ("embedding", curves["embedding"], names),
                ("coupling", curves["coupling"], names[1:]),
                ("similarity", patterns.parallel_blocks(c).similarity, names[1:]),
            ):
                result += tensor_rows("hc-patterns", name, run, phase, name, values, rows)
            shape = patterns.lambda_pattern(c)
            numbers = torch.tensor(
                [shape.decay, shape.bottom_excess, patterns.readout_embedding_weight(c)]
            )
            result += tensor_rows(
                "hc-patterns",
                "detectors",
                run,
                phase,
                "detector",
                numbers,
                ["decay rate", "bottom excess", "embedding in the readout"],
            )
    return result


def draw_ledger(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: what each stream holds at the readout, initial and trained."""
    axes = figure.subplots(len(runs), 2, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        maps = [held(run, found) for _, found in phases(run)]
        limit = float(torch.stack(maps).abs().max())
        sites = list(run.trained_trace.site_names)
        for ax, values, phase in zip(row, maps, ("initial", "trained"), strict=True):
            image = draw_weights(ax, values.numpy(), ["e", *sites], limit)
            if len(sites) <= 10:
                print_entries(ax, image, values.numpy(), fontsize=5.2)
            ax.set_yticks(range(len(values)), [f"s{s}" for s in range(len(values))])
            for stream, label in enumerate(ax.get_yticklabels()):
                label.set_color(style.stream_colour(stream))
                label.set_fontweight("bold")
            ax.set_title(f"{run.label}: {phase}")
            ax.set_xlabel("written by")
        row[0].set_ylabel("stream")
        weight_bar(figure, image, row, "weight (line: 1)")
    return figure


def ledger_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """The ledger at the readout: ``site`` is the writer, ``stream`` the stream that holds it."""
    result: list[Row] = []
    for run in runs:
        for phase, found in phases(run):
            names = ["embedding", *found.site_names]
            values = held(run, found).T.contiguous()
            result += tensor_rows("ledger", "C[s, j]", run, phase, "ledger", values, names)
    return result


def unfolded_size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH, 0.3 + 2.6 * len(runs)


def patterns_size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.6 + 2.0 * len(runs)


def ledger_size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.1, 0.3 + 1.6 * len(runs)
