"""Figure 1: the token-averaged mixer at two sites, and how far from the identity every mixer is."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy

from ..diagnostics import Capture, quantity
from . import style
from .records import Row, quantity_rows
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Token-averaged mixers"
DEFINITIONS = {
    "heat maps": "Rbar = mean over tokens of H_res; rows are destinations, columns are sources",
    "off-diagonal mass": "1 - trace(H_res) / n, token mean, per site (D6)",
}


def shown_sites(capture: Capture) -> tuple[str, str]:
    """The two sites of the paper's figure: the first MLP and the last block's attention."""
    attention = [name for name in capture.site_names if name.endswith("a")]
    mlp = [name for name in capture.site_names if name.endswith("m")]
    return mlp[0], attention[-1]


def mixer_norm(values: Any, n: int) -> Any:
    """Colour scale 0..1 centred on 1/n, what full averaging gives; wider for signed mixers."""
    colors = import_module("matplotlib.colors")
    centre = 1 / n if n > 1 else 0.5
    return colors.TwoSlopeNorm(
        vmin=min(0.0, float(values.min())),
        vcenter=centre,
        vmax=max(1.0, float(values.max())),
    )


def mixer_colours() -> Any:
    """Diverging blue, white, red without the darkest ends, so that printed entries stay legible."""
    colors = import_module("matplotlib.colors")
    shades = import_module("matplotlib").colormaps["RdBu_r"](numpy.linspace(0.1, 0.9, 256))
    return colors.ListedColormap(shades, name="mixer")


def entry(value: float) -> str:
    """A mixer entry in a cell: three decimals without the leading zero; small ones as a power.

    From 10 on three digits.
    """
    if abs(value) >= 9.9995:
        return f"{value:.3g}".replace("e+0", "e")
    if value != 0 and abs(value) < 5e-4:
        mantissa, _, exponent = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def draw_mixer(ax: Axes, capture: Capture, site: str, norm: Any) -> Axes:
    """One heat map of the mean ``h_res[destination, source]`` with its entries printed."""
    values = capture.mean("h_res")[capture.site_names.index(site)].numpy()
    return draw_matrix(ax, values, norm)


def draw_matrix(ax: Axes, values: Any, norm: Any) -> Axes:
    """A map from streams to streams, ``[destination, source]``, entries printed up to n = 5."""
    n = len(values)
    image = ax.imshow(values, cmap=mixer_colours(), norm=norm)
    names = [f"s{s}" for s in range(n)]
    ax.set_xticks(range(n), names)
    ax.set_yticks(range(n), names)
    ax.tick_params(length=0, pad=2)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    if n <= 5:
        print_entries(ax, image, values)
    return ax


def print_entries(ax: Axes, image: Any, values: Any, *, fontsize: float = 6.2) -> None:
    """Every entry in its cell, in the ink that can be read there; nan is left out."""
    for (j, i), value in numpy.ndenumerate(values):
        if not numpy.isfinite(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55
        ink = style.INK if light else "white"
        ax.text(i, j, entry(value), ha="center", va="center", fontsize=fontsize, color=ink)


def draw_off_diagonal(ax: Axes, run: CapturedRun) -> Axes:
    """Off-diagonal mass of every site's mixer, its value at initialisation dashed."""
    names = run.trained.site_names
    initial, trained = (
        quantity("off_diagonal_mass", c).numpy() for c in (run.initial, run.trained)
    )
    style.initial_line(ax, initial)
    ax.plot(range(len(names)), trained, color=style.INK, marker="o", label="trained")
    positive = numpy.concatenate([initial, trained])
    if (positive > 0).all():
        ax.set_yscale("log")
        low, high = positive.min(), max(positive.max(), 1 - 1 / run.trained.n_streams)
        ax.set_ylim(low / 2, high * 1.5)
    averaging = 1 - 1 / run.trained.n_streams
    ax.axhline(averaging, color=style.FAINT, lw=0.9, ls=":", label="full averaging")
    style.site_axis(ax, names)
    if run.replicated:
        style.grey_out(ax, 0, "no effect")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: both sites at initialisation and trained, then the off-diagonal mass."""
    axes = figure.subplots(
        len(runs), 5, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 1, 1, 1.9]}
    )
    for row, run in zip(axes, runs, strict=True):
        sites = shown_sites(run.trained)
        pairs = [(c, site) for site in sites for c in (run.initial, run.trained)]
        shown = numpy.stack([c.mean("h_res")[c.site_names.index(s)].numpy() for c, s in pairs])
        norm = mixer_norm(shown, run.trained.n_streams)
        for ax, (capture, site) in zip(row, pairs, strict=False):
            draw_mixer(ax, capture, site, norm)
            phase = "initial" if capture is run.initial else "trained"
            ax.set_title(f"{site} {phase}", fontsize=7.5)
        row[0].set_ylabel(f"{run.label}\n\ndestination", fontweight="bold")
        for ax in row[:4]:
            ax.set_xlabel("source", labelpad=1)
        bar = figure.colorbar(row[3].images[0], ax=row[:4], shrink=0.85, pad=0.01, fraction=0.03)
        bar.set_ticks([0, 1 / run.trained.n_streams, 1], labels=["0", "1/n", "1"])
        bar.outline.set_visible(False)
        draw_off_diagonal(row[4], run)
        row[4].set_title("off-diagonal mass")
    axes[0, 4].legend(loc="upper right", fontsize=6.2, handlelength=1.6)
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """What the figure shows, as numbers."""
    result: list[Row] = []
    for run in runs:
        sites = shown_sites(run.trained)
        result += quantity_rows("fig1", "heat maps", run, "mean_mixer", sites=sites)
        result += quantity_rows("fig1", "off-diagonal mass", run, "off_diagonal_mass")
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.15, 0.3 + 1.7 * len(runs)
