"""Connection coefficients over training, from the captures that a run makes at its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..diagnostics import Capture, quantity
from ..train import RunError
from . import style
from .panels import stream_legend
from .records import Row, tensor_rows
from .runs import CapturedRun
from .sweep import three_sites

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Write coefficients over training"
DEFINITIONS = {
    "beta": "token mean of the write coefficient H_post of each stream (beta of 2409.19606), on "
    "the same validation windows at every checkpoint",
    "effective streams": "exp(entropy) of the write and the read share (D3), mean over sites",
    "dashed": "beta: largest and smallest at step 0; effective streams: their value at step 0",
}


def steps_of(run: CapturedRun) -> tuple[list[int], list[Capture]]:
    """Steps and captures; an error when the run was not captured while it trained."""
    history = run.history
    if len(history) < 2:
        raise RunError(
            f"hc-beta-dynamics: {run.path}: expected captures at several steps, got "
            f"{len(history)}; they are made by runs that 'hyperstreams figure hc-beta-dynamics "
            "--scale ...' trains"
        )
    return [step for step, _ in history], [captured for _, captured in history]


def write_coefficients(captures: Sequence[Capture]) -> Tensor:
    """``[steps, sites, n]``."""
    return torch.stack([captured.mean("h_post") for captured in captures])


def effective(captures: Sequence[Capture], side: str) -> Tensor:
    """Mean over sites of the effective number of streams, ``[steps]``."""
    return torch.stack([quantity(f"{side}_effective_streams", c).mean() for c in captures])


def draw_beta(ax: Axes, run: CapturedRun, site: str) -> Axes:
    """A line per stream over the steps; dashed: where the largest and the smallest began."""
    steps, captures = steps_of(run)
    index = captures[0].site_names.index(site)
    beta = write_coefficients(captures)[:, index].numpy()
    for stream in range(beta.shape[1]):
        ax.plot(
            steps,
            beta[:, stream],
            color=style.stream_colour(stream),
            marker=style.stream_marker(stream),
            ms=2.8,
        )
    for start in {float(beta[0].min()), float(beta[0].max())}:
        ax.axhline(start, color=style.REFERENCE, lw=0.9, ls=(0, (4, 2)), zorder=1)
    ax.set_xlabel("step")
    low, high = float(beta.min()), float(beta.max())
    ax.set_ylim(min(0.0, low * 1.1), max(high, 0.1) * 1.1)
    return ax


def draw_effective(ax: Axes, run: CapturedRun) -> Axes:
    """Effective streams of reads and writes over the steps."""
    steps, captures = steps_of(run)
    for side, marker, dashes in (("read", "o", (0, (5, 1.5))), ("write", "s", "-")):
        values = effective(captures, side).numpy()
        face = "white" if side == "read" else style.INK
        ax.plot(steps, values, color=style.INK, marker=marker, mfc=face, ls=dashes, label=side)
        ax.axhline(values[0], color=style.REFERENCE, lw=0.9, ls=(0, (4, 2)), zorder=1)
    n = captures[0].n_streams
    ax.axhline(n, color=style.FAINT, lw=0.9, ls=":")
    ax.set_ylim(0.9, n + 0.15)
    ax.set_xlabel("step")
    return ax


def draw(figure: Figure, runs: Sequence[CapturedRun]) -> Figure:
    """A row per run: beta at three depths, then effective streams."""
    axes = figure.subplots(len(runs), 4, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        captures = steps_of(run)[1]
        for ax, site in zip(row, three_sites(captures[0]), strict=False):
            draw_beta(ax, run, site)
            ax.set_title(f"{site}", fontsize=7.5)
        row[0].set_title(f"{run.label}: {three_sites(captures[0])[0]}", fontsize=7.5)
        row[0].set_ylabel("beta (write weight)")
        draw_effective(row[3], run)
        row[3].set_title("effective streams", fontsize=7.5)
    sides = {line.get_label(): line for line in axes[0, 3].lines}
    n = max(steps_of(run)[1][0].n_streams for run in runs)
    stream_legend(figure, n, read=sides["read"], write=sides["write"])
    return figure


def rows(runs: Sequence[CapturedRun]) -> list[Row]:
    """Coefficients of all sites at every step; ``site`` holds step and site."""
    result: list[Row] = []
    for run in runs:
        steps, captures = steps_of(run)
        for step, captured in zip(steps, captures, strict=True):
            phase = "initial" if step == 0 else "trained"
            names = [f"step {step} {site}" for site in captured.site_names]
            for name in ("h_post", "h_pre"):
                values = captured.mean(name)
                result += tensor_rows("hc-beta-dynamics", name, run, phase, name, values, names)
            for side in ("read", "write"):
                values = quantity(f"{side}_effective_streams", captured)
                result += tensor_rows(
                    "hc-beta-dynamics",
                    "effective streams",
                    run,
                    phase,
                    f"{side}_effective_streams",
                    values,
                    names,
                )
    return result


def size(runs: Sequence[CapturedRun]) -> tuple[float, float]:
    return style.COLUMN_WIDTH * 1.25, 0.6 + 1.8 * len(runs)
