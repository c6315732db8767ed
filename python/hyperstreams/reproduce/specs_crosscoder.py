"""The figure made from sparse crosscoders."""

from __future__ import annotations

from . import crosscoder_figure, plans
from .spec import FigureSpec

SPECS = (
    FigureSpec(
        "fig5",
        crosscoder_figure.TITLE,
        "arXiv 2606.03483, figure 5, at small scale (its dictionary size, loss and panels are not "
        "known)",
        "Top left: per layer, the fraction of a crosscoder's features that are strongest in each "
        "stream; the pale bar is the same for the random weights that the run started from, dotted "
        "lines are equal parts. Top right: how much of a feature's decoder norm its strongest "
        "stream holds; features that live in one stream are at 1, and only what exceeds the "
        "controls counts. Bottom left: its mean over features for every control and for other "
        "coders, and what the ledger of writes predicts without a coder. Bottom right: how much of "
        "a feature's own direction another stream holds when it fires; a feature called exclusive "
        "that is near 1 here is an artefact of the coder. The crosscoders are trained once and "
        "kept in the run's folder.",
        crosscoder_figure.DEFINITIONS,
        crosscoder_figure.VARIANT,
        crosscoder_figure.draw,
        crosscoder_figure.rows,
        crosscoder_figure.size,
        plans.baseline,
        measurements=crosscoder_figure.measurements,
    ),
)
