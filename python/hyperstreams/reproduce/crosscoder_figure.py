"""Figure 5: in which streams the features of a sparse crosscoder live, beside its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import torch

from . import style
from .crosscoder import JobResult, job_measurement, kept_in, run_job
from .crosscoder_jobs import describe_job, figure_jobs, recipe
from .measurements import Measurement
from .records import Row
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Crosscoder features by stream"
LEDGER = "ledger, no coder"
DEFINITIONS = {
    "leading stream": "per layer, the stream with the largest decoder norm of a feature; features "
    "counted that are active on held-out tokens",
    "max stream share": "max over streams of sum_l |W_dec[j, (l, s)]| / sum_(l, r) |W_dec[j, "
    "(l, r)]| (D26), in the coder's units",
    "latent scaling": "<D, E[f a_s]> / (|D|^2 E[f^2]) over the same for the feature's own stream, "
    "D its decoder there over all layers; the largest other stream",
    "identical streams": "every stream replaced by the mean of the streams",
    "shuffled streams": "streams permuted independently for every token",
    LEDGER: "shares that the stream ledger predicts for whatever each sublayer and the embedding "
    "write (D11), mean weighted by size; the coder adds what departs from it",
    "random weights": "the model as initialised from the same seed, with its designated streams",
}
VARIANT = {
    "coder": "joint over the layers, BatchTopK",
    "normalisation": "site: every stream and layer scaled to mean norm sqrt(width)",
    "layers": "states after even blocks",
    "position_0": "left out",
}
BINS = numpy.linspace(0.0, 1.0, 41)
RATIOS = numpy.linspace(-0.25, 1.5, 43)
"""Bins of the two histograms; ratios beyond the ends are counted in the outer bins."""
LOOKS = {
    "random weights": ("#111111", (0, (4, 2))),
    "shuffled streams": ("#B8860B", "-"),
    "norm global": ("#5B4FA2", (0, (3, 1, 1, 1))),
}


def results(run: CapturedRun) -> dict[str, JobResult]:
    """The coders of figure 5 by what tells them apart; trained where they are missing."""
    main = recipe(run)
    return {describe_job(job, main): run_job(run, job, kept_in(run)) for job in figure_jobs(main)}


def measurements(runs: Sequence[CapturedRun]) -> list[Measurement]:
    """The coders of figure 5 for every run."""
    return [job_measurement(run, job) for run in runs for job in figure_jobs(recipe(run))]


def draw_leading(ax: Axes, trained: JobResult, random: JobResult) -> Axes:
    """Stacked bars per layer; the pale bar on the left is the random-weight model."""
    places = numpy.arange(len(trained.job.layers))
    n = len(_counts(trained)[0])
    for result, offset, width, alpha in ((random, -0.33, 0.2, 0.45), (trained, 0.12, 0.6, 1.0)):
        counts = _counts(result)
        share = counts / counts.sum(axis=1, keepdims=True)
        base = numpy.zeros(len(places))
        for stream in range(n):
            ax.bar(
                places + offset,
                share[:, stream],
                width=width,
                bottom=base,
                color=style.stream_colour(stream),
                alpha=alpha,
                edgecolor="white",
                linewidth=0.5,
                label=f"s{stream}" if alpha == 1.0 else None,
            )
            base = base + share[:, stream]
    for edge in range(1, n):
        ax.axhline(edge / n, color=style.REFERENCE, lw=0.7, ls=":")
    ax.set_xticks(places, [f"after block {layer}" for layer in trained.job.layers])
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.set_ylim(0, 1)
    ax.set_ylabel("fraction of features")
    ax.grid(visible=False)
    return ax


def draw_histogram(ax: Axes, by_name: dict[str, JobResult]) -> Axes:
    """Distribution of a feature's largest stream share; lines for what it is read against."""
    main = _max_share(by_name["trained model"])
    n = by_name["trained model"].latents("share").shape[1]
    ax.hist(
        main,
        bins=BINS.tolist(),
        weights=numpy.full(len(main), 1 / max(len(main), 1)).tolist(),
        color="#9DB4C0",
        label="trained model",
    )
    for name, (colour, dash) in LOOKS.items():
        values = _max_share(by_name[name])
        heights, _ = numpy.histogram(values, BINS)
        heights = heights / max(len(values), 1)
        ax.stairs(heights, BINS, color=colour, ls=dash, lw=1.2, label=name)
    ax.axvline(1 / n, color=style.REFERENCE, lw=0.9, ls=":", label="1/n: identical streams")
    ax.set_xlim(min(1 / n - 0.05, 0.2), 1.0)
    ax.set_xlabel("largest stream share of a feature")
    ax.set_ylabel("fraction of features")
    ax.legend(loc="upper right", fontsize=6.2)
    return ax


def draw_scaling(ax: Axes, by_name: dict[str, JobResult]) -> Axes:
    """How much of a feature's direction another stream holds: exclusive features are at 0."""
    for name, filled in (("trained model", True), ("random weights", False)):
        values = numpy.clip(_finite(by_name[name]), RATIOS[0], RATIOS[-1])
        heights, _ = numpy.histogram(values, RATIOS)
        heights = heights / max(len(values), 1)
        if filled:
            ax.stairs(heights, RATIOS, fill=True, color="#9DB4C0", label=name)
        else:
            colour, dash = LOOKS[name]
            ax.stairs(heights, RATIOS, color=colour, ls=dash, lw=1.2, label=name)
    ax.axvline(0.0, color=style.FAINT, lw=0.9, label="0: in its own stream alone")
    ax.axvline(1.0, color=style.REFERENCE, lw=0.9, ls=":", label="1: identical streams")
    ax.set_xlim(RATIOS[0], RATIOS[-1])
    ax.set_xlabel("strength in another stream / in its own")
    ax.set_ylabel("fraction of features")
    ax.legend(loc="upper left", bbox_to_anchor=(0.15, 1.0), fontsize=6.2)
    return ax


def draw_means(ax: Axes, by_name: dict[str, JobResult]) -> Axes:
    """Mean largest share of every coder, with its 10 to 90 percent range over features.

    The last line is no coder: what the ledger of writes predicts, over writers."""
    n = by_name["trained model"].latents("share").shape[1]
    for place, (name, result) in enumerate(by_name.items()):
        values = _max_share(result)
        low, high = numpy.quantile(values, [0.1, 0.9]) if len(values) else (numpy.nan, numpy.nan)
        own = name == "trained model"
        colour = "#3D5A6C" if own else style.FAINT
        ax.plot([low, high], [place, place], color=colour, lw=2.4, alpha=0.55)
        mean = float(values.mean()) if len(values) else numpy.nan
        ax.plot(mean, place, "o", color="#3D5A6C" if own else style.INK, ms=4.4)
    names = [*by_name, LEDGER]
    ledger = by_name["trained model"].record["ledger"]
    low, high = numpy.quantile(ledger["max_share"], [0.1, 0.9])
    ax.plot([low, high], [len(by_name)] * 2, color=style.FAINT, lw=2.4, alpha=0.55)
    ax.plot(ledger["mean_max_share"], len(by_name), "D", color=style.INK, ms=4.0)
    ax.axvline(1 / n, color=style.REFERENCE, lw=0.9, ls=":")
    foot = (1 / n, len(names) - 0.1)
    ax.annotate("1/n", foot, (2, 2), textcoords="offset points", va="bottom", fontsize=6.2)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.1, -0.5)
    ax.set_xlim(min(1 / n - 0.05, 0.2), 1.0)
    ax.set_xlabel("largest stream share: mean, 10–90 %")
    ax.grid(visible=False, axis="y")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """Two rows of two panels per run."""
    axes = figure.subplots(2 * len(runs), 2, squeeze=False)
    for index, run in enumerate(runs):
        by_name = results(run)
        top, below = axes[2 * index], axes[2 * index + 1]
        draw_leading(top[0], by_name["trained model"], by_name["random weights"])
        top[0].set_title(f"{run.label}: leading stream (pale: random weights)", fontsize=8)
        draw_histogram(top[1], by_name)
        top[1].set_title("how exclusive features are")
        draw_means(below[0], by_name)
        below[0].set_title("beside controls and other coders")
        draw_scaling(below[1], by_name)
        below[1].set_title("latent scaling: is the feature elsewhere too?")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Counts per layer and stream, the two histograms, and the summary of every coder."""
    found: list[Row] = []
    for run in runs:
        for name, result in results(run).items():
            base: Row = {
                "figure": "fig5",
                "run": run.label,
                "connection": run.connection,
                "seed": run.seed,
                "phase": "initial" if result.job.control == "random_weights" else "trained",
            }
            counts = _counts(result)
            for (layer, stream), value in numpy.ndenumerate(counts):
                found.append(
                    base
                    | {
                        "panel": f"leading stream: {name}",
                        "quantity": "features led by the stream",
                        "site": f"after block {result.job.layers[layer]}",
                        "stream": stream,
                        "value": float(value),
                    }
                )
            for panel, values, edges in (
                ("largest stream share", _max_share(result), BINS),
                ("latent scaling", _finite(result), RATIOS),
            ):
                heights, _ = numpy.histogram(numpy.clip(values, edges[0], edges[-1]), edges)
                for edge, height in zip(edges, heights, strict=False):
                    found.append(
                        base
                        | {
                            "panel": f"{panel}: {name}",
                            "quantity": f"features from {edge:.4f}",
                            "value": float(height),
                        }
                    )
            if result.record["ledger"] is not None:
                found.append(
                    base
                    | {
                        "panel": f"{LEDGER}: {name}",
                        "quantity": "mean max share",
                        "value": float(result.record["ledger"]["mean_max_share"]),
                    }
                )
            for key in ("mean_max_share", "mean_max_share_raw", "mean_effective_streams", *EXTRA):
                for coder, record in result.coders.items():
                    found.append(
                        base
                        | {
                            "panel": f"summary: {name}",
                            "quantity": f"{coder}: {key.replace('_', ' ')}",
                            "value": float(record[key]),
                        }
                    )
    return found


EXTRA = ("explained_variance_total", "l0", "dead_fraction", "latent_scaling_median")
"""Further numbers of a coder in the CSV."""


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.1, 0.4 + 4.6 * len(runs)


def _counts(result: JobResult) -> numpy.ndarray:
    """``[layers, n]`` features led by each stream, over the coders of the job."""
    rows = [record["leading_stream_counts"] for record in result.coders.values()]
    return numpy.concatenate([numpy.asarray(counts) for counts in rows], axis=0)


def _max_share(result: JobResult) -> numpy.ndarray:
    values: numpy.ndarray = result.latents("share").amax(dim=-1).numpy()
    return values


def _finite(result: JobResult) -> numpy.ndarray:
    values = result.latents("elsewhere")
    kept: numpy.ndarray = values[torch.isfinite(values)].numpy()
    return kept
