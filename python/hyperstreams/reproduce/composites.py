"""Mixers in sequence: gain of composites (mHC's Amax) and what they leave of stream differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from ..diagnostics import Trace, composite, similarity
from . import style
from .mixers import draw_matrix, mixer_norm
from .records import Row, tensor_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAIN_TITLE = "Gain of composite mixers"
GAIN_DEFINITIONS = {
    "forward gain": "max over destinations of |sum over sources of P|, P = R[k-1] ... R[0] of one "
    "token, mean over tokens (D9)",
    "backward gain": "max over sources of |sum over destinations of P|, mean over tokens (D9)",
    "single": "forward gain of each site's own mixer",
    "heat maps": "token mean of the composite over all sites, destinations in rows (D7)",
}
SPECTRUM_TITLE = "Spectrum of composite mixers and effective rank of the streams"
SPECTRUM_DEFINITIONS = {
    "eigenvalues": "|eigenvalues| of P = R[k-1] ... R[0] of one token, in falling order, mean over "
    "tokens",
    "second singular value": "largest singular value of P among vectors over streams that sum to "
    "zero, mean over tokens (D8); single: of each site's own mixer",
    "effective rank": "exp(entropy) of the eigenvalues of a token's Gram matrix of streams divided "
    "by their sum, mean over tokens (D17, raw)",
}


def token_mean(values: Tensor) -> Tensor:
    """Mean over the token axes of ``[K, B, T, ...]``."""
    return values.mean(dim=(1, 2)).cpu()


def gain(found: Trace, side: composite.Side, *, single: bool = False) -> Tensor:
    """Amax gain after each site, mean over tokens, ``[K]``; of composites or single mixers."""
    p = found.h_res.double()
    p = p if single else composite.composites(p)[1:]
    return token_mean(composite.amax_gain(p, side=side))


def contraction(found: Trace, *, single: bool = False) -> Tensor:
    """Second singular value after each site, mean over tokens, ``[K]``."""
    p = found.h_res.double()
    return token_mean(composite.contraction(p if single else composite.composites(p)[1:]))


def eigenvalues(found: Trace) -> Tensor:
    """Moduli of the composites' eigenvalues, largest first, mean over tokens, ``[K, n]``."""
    p = composite.composites(found.h_res.double())[1:]
    moduli = torch.linalg.eigvals(p).abs().sort(dim=-1, descending=True).values
    return token_mean(moduli)


def effective_rank(found: Trace) -> Tensor:
    """Effective rank of every token's streams, mean over tokens, ``[K + 1]``."""
    x = found.streams.double()
    return token_mean(similarity.effective_rank(x @ x.mT))


def whole(found: Trace) -> Tensor:
    """Token mean of the composite over all sites, ``[n, n]``."""
    return composite.mean_composite(found.h_res.double())[-1].cpu()


GAINS: dict[str, tuple[Callable[[Trace], Tensor], str, str]] = {
    "forward, composite": (partial(gain, side="destination"), "o", "-"),
    "backward, composite": (partial(gain, side="source"), "s", (0, (5, 1.5))),  # type: ignore[dict-item]
    "forward, single": (partial(gain, side="destination", single=True), "^", (0, (1, 1))),  # type: ignore[dict-item]
}
"""Curves of the gain panel: how computed, marker, dashes."""


def draw_gain(ax: Axes, run: CapturedRun) -> Axes:
    """Gains after each site; dashed black: composites at initialisation; dotted: 1, exact sums."""
    for k, (name, (compute, marker, dashes)) in enumerate(GAINS.items()):
        values = compute(run.trained_trace).numpy()
        colour = style.RUN_COLOURS[k]
        ax.plot(range(len(values)), values, color=colour, marker=marker, ls=dashes, label=name)
    sides = [gain(run.initial_trace, side).numpy() for side in ("destination", "source")]
    style.initial_line(ax, numpy.stack(sides, axis=1), label="composite, initial")
    ax.axhline(1.0, color=style.FAINT, lw=0.9, ls=":", label="1: sums kept")
    low, high = ax.get_ylim()
    if high - low < 0.05:  # nothing to see but rounding: show it as flat
        ax.set_ylim(1 - 0.05, 1 + 0.05)
    elif high > 20:
        ax.set_yscale("log")
    style.site_axis(ax, run.trained_trace.site_names, label="up to site")
    return ax


def draw_gains(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: the gains, then the composite over all sites, initial and trained."""
    axes = figure.subplots(len(runs), 3, squeeze=False, width_ratios=(2.4, 1.0, 1.0))
    for row, run in zip(axes, runs, strict=True):
        draw_gain(row[0], run)
        row[0].set_title(f"{run.label}: Amax gain")
        maps = [whole(run.initial_trace), whole(run.trained_trace)]
        n = maps[0].shape[0]
        norm = mixer_norm(torch.stack(maps).numpy(), n)
        for ax, values, phase in zip(row[1:], maps, ("initial", "trained"), strict=True):
            draw_matrix(ax, values.numpy(), norm)
            ax.set_title(f"all sites, {phase}", fontsize=7.5)
            ax.set_xlabel("source", labelpad=1)
        row[1].set_ylabel("destination")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def gain_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """The curves and the heat maps as numbers."""
    result: list[Row] = []
    for run in runs:
        for phase, found in (("initial", run.initial_trace), ("trained", run.trained_trace)):
            for name, (compute, *_) in GAINS.items():
                values = compute(found)
                result += tensor_rows(
                    "mhc-gain", "Amax gain", run, phase, name, values, found.site_names
                )
            both = whole(found).unsqueeze(0)
            result += tensor_rows(
                "mhc-gain", "heat maps", run, phase, "mean composite", both, ["all sites"]
            )
    return result


def around_one(ax: Axes) -> None:
    """Limits that show small departures from 1, and 0 once half is gone; large ones as powers."""
    values = numpy.concatenate([numpy.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    low, high = min(values.min(), 1.0), max(values.max(), 1.0)
    margin = 0.1 * max(high - low, 0.02)
    if high > 20 and low > 0:
        ax.set_yscale("log")
        return
    ax.set_ylim(0.0 if low < 0.5 else low - margin, high + margin)


def draw_spectra(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: |eigenvalues|, second singular value, effective rank of the streams."""
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        names = run.trained_trace.site_names
        moduli, start = eigenvalues(run.trained_trace).numpy(), eigenvalues(run.initial_trace)
        shades = numpy.linspace(0.0, 0.65, moduli.shape[1])
        for k, shade in enumerate(shades):
            row[0].plot(range(len(moduli)), moduli[:, k], color=str(shade), marker="o", ms=2.5)
        style.initial_line(row[0], start.numpy())
        row[0].axhline(1.0, color=style.FAINT, lw=0.9, ls=":")
        row[0].set_title(f"{run.label}: |eigenvalues|")
        for single, marker, colour in ((False, "o", style.INK), (True, "^", style.RUN_COLOURS[2])):
            values = contraction(run.trained_trace, single=single).numpy()
            label = "single" if single else "composite"
            row[1].plot(range(len(values)), values, color=colour, marker=marker, label=label)
        style.initial_line(row[1], contraction(run.initial_trace).numpy())
        row[1].axhline(1.0, color=style.FAINT, lw=0.9, ls=":", label="1: no averaging")
        row[1].set_title("second singular value")
        around_one(row[0])
        around_one(row[1])
        ranks = effective_rank(run.trained_trace).numpy()
        row[2].plot(range(len(ranks)), ranks, color=style.INK, marker="o")
        style.initial_line(row[2], effective_rank(run.initial_trace).numpy())
        row[2].axhline(run.trained_trace.n_streams, color=style.FAINT, lw=0.9, ls=":")
        row[2].set_ylim(0.9, run.trained_trace.n_streams + 0.15)
        row[2].set_title("effective rank of the streams")
        style.site_axis(row[0], names, label="up to site")
        style.site_axis(row[1], names, label="up to site")
        style.site_axis(row[2], [*names, "out"], label="state before site")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    labels[-1] = "dotted: 1, or n for the rank"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def spectrum_rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """The curves as numbers."""
    result: list[Row] = []
    for run in runs:
        for phase, found in (("initial", run.initial_trace), ("trained", run.trained_trace)):
            sites = found.site_names
            for name, values in (
                ("eigenvalue modulus", eigenvalues(found)),
                ("second singular value", contraction(found)),
                ("second singular value, single", contraction(found, single=True)),
                ("effective rank", effective_rank(found)),
            ):
                names = sites if len(values) == len(sites) else [*sites, "readout"]
                result += tensor_rows("spectrum", name, run, phase, name, values, names)
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.5 + 1.75 * len(runs)
