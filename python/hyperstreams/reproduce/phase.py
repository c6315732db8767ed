"""Phase picture: learning rate x multiplier of the connections' learning rate, several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy

from ..diagnostics import quantity
from . import style
from .loss import series
from .records import Row
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "How far connection parameters can travel decides what appears"
DEFINITIONS = {
    "final loss": "validation loss after the last step, nats per byte",
    "write dominance": "(n max - 1) / (n - 1) of the write share, mean over sites (D4)",
    "read dominance": "the same of the read share",
    "effective streams": "exp(entropy) of the write share, mean over sites (D3)",
    "cells": "mean over seeds, below it smallest to largest; the travel of a parameter is bounded "
    "by about the sum of its learning rates, lr x multiplier x steps",
}
AGGREGATION = "mean over the seeds of each cell, with the smallest and the largest value"


def final_loss(run: CapturedRun) -> float:
    return float(series(run)[1][-1])


def site_average(name: str) -> Callable[[CapturedRun], float]:
    """Mean over sites of a quantity of the trained model."""
    return lambda run: float(quantity(name, run.trained).mean())


def initial_average(name: str, runs: Sequence[CapturedRun]) -> float:
    """The same before training, mean over runs."""
    return statistics.mean(float(quantity(name, run.initial).mean()) for run in runs)


PANELS: dict[str, tuple[str | None, str, str]] = {
    "final loss": (None, "viridis_r", ".3f"),
    "write dominance": ("write_dominance", "cividis", ".2f"),
    "read dominance": ("read_dominance", "cividis", ".2f"),
    "effective streams": ("write_effective_streams", "cividis_r", ".2f"),
}
"""Quantity (None: the loss), colours and format of each panel."""


def values_of(name: str, run: CapturedRun) -> float:
    """The number of one panel for one run."""
    key = PANELS[name][0]
    return final_loss(run) if key is None else site_average(key)(run)


def cells(runs: Sequence[CapturedRun]) -> dict[tuple[float, float], list[CapturedRun]]:
    """Runs by (learning rate, multiplier)."""
    found: dict[tuple[float, float], list[CapturedRun]] = {}
    for run in runs:
        config = run.loaded.config
        found.setdefault((config.lr, config.connection_lr_multiplier), []).append(run)
    return found


def draw_panel(ax: Axes, runs: Sequence[CapturedRun], name: str) -> Axes:
    """One quantity over the grid: learning rates in rows, multipliers in columns."""
    grid = cells(runs)
    rates = sorted({rate for rate, _ in grid})
    multipliers = sorted({multiplier for _, multiplier in grid})
    key, colours, form = PANELS[name]
    mean = numpy.full((len(rates), len(multipliers)), numpy.nan)
    texts: dict[tuple[int, int], str] = {}
    for (rate, multiplier), group in grid.items():
        place = rates.index(rate), multipliers.index(multiplier)
        numbers = [values_of(name, run) for run in group]
        mean[place] = statistics.mean(numbers)
        texts[place] = f"{mean[place]:{form}}"
        if len(numbers) > 1:
            texts[place] += f"\n{min(numbers):{form}} to {max(numbers):{form}}"
    norm = _norm(name, mean, runs)
    colormap = import_module("matplotlib").colormaps[colours]
    image = ax.imshow(mean, cmap=colormap, norm=norm, origin="lower", aspect="auto")
    for (j, i), text in texts.items():
        red, green, blue, _ = image.cmap(image.norm(mean[j, i]))
        ink = style.INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else "white"
        ax.text(i, j, text, ha="center", va="center", fontsize=5.8, color=ink)
    ax.set_xticks(range(len(multipliers)), [f"x{m:g}" for m in multipliers])
    ax.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", pad=0.02, fraction=0.06)
    bar.outline.set_visible(False)
    reference = _reference(name, runs)
    if norm.vmin <= reference <= norm.vmax:
        bar.ax.axvline(reference, color="#D55E00", lw=2.0)
    word = "initial" if key is not None else "before training"
    ax.set_title(f"{name}\n{word} {reference:{form}}", fontsize=7.5)
    return ax


def _reference(name: str, runs: Sequence[CapturedRun]) -> float:
    key = PANELS[name][0]
    if key is None:
        return statistics.mean(series(run)[1][0] for run in runs)
    return initial_average(key, runs)


def _norm(name: str, mean: Any, runs: Sequence[CapturedRun]) -> Any:
    """The loss on its own range; the others on theirs, whatever happens to be in the grid."""
    normalize = import_module("matplotlib.colors").Normalize
    if PANELS[name][0] is None:
        return normalize(float(numpy.nanmin(mean)), float(numpy.nanmax(mean)))
    n = runs[0].trained.n_streams
    return normalize(1.0, n) if name == "effective streams" else normalize(0.0, 1.0)


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """Four panels beside each other."""
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for ax, name in zip(axes, PANELS, strict=True):
        draw_panel(ax, runs, name)
    axes[0].set_ylabel("learning rate")
    figure.supxlabel("multiplier of the connection parameters' learning rate", fontsize=8)
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Every run's numbers; ``site`` holds the cell. The initial values beside them."""
    result: list[Row] = []
    for (rate, multiplier), group in cells(runs).items():
        for run in group:
            common = {
                "figure": "phase",
                "run": run.label,
                "connection": run.connection,
                "seed": run.seed,
                "site": f"lr {rate:g} x{multiplier:g}",
            }
            for name, (key, *_) in PANELS.items():
                initial = (
                    series(run)[1][0] if key is None else float(quantity(key, run.initial).mean())
                )
                for phase, value in (("initial", initial), ("trained", values_of(name, run))):
                    row = {"panel": name, "phase": phase, "quantity": name, "value": value}
                    result.append({**common, **row})
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    rates = len({run.loaded.config.lr for run in runs})
    return style.COLUMN_WIDTH * 1.3, 1.6 + 0.55 * rates
