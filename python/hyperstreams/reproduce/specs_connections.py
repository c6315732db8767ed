"""Figures of the connections themselves (2409.19606, 2512.24880) and the phase picture: words."""

from __future__ import annotations

from . import adjacent, composites, dynamics, phase, plans, unfolded
from .runs import TRACED_TOKENS
from .spec import FigureSpec

TRACED = {
    "traced": f"about {TRACED_TOKENS} tokens, at least one validation window",
    "reference": "same seed at step 0",
}

SPECS = (
    FigureSpec(
        "hc-unfolded",
        unfolded.UNFOLDED_TITLE,
        "arXiv 2409.19606, unfolded dense connection matrices, at small scale",
        "Rows read, columns write: the weight of every earlier output in the input of a site. "
        "A plain residual network would have 1 everywhere below the diagonal (line in the colour "
        "bar). Compare with the initial matrix on the left: fading to the left is decay with "
        "distance, a coloured first column is the embedding. Average weights hide routing: the "
        "deviation over tokens is in the CSV.",
        unfolded.UNFOLDED_DEFINITIONS,
        {"contribution": "weight", "average": "token mean of per-token products", **TRACED},
        unfolded.draw_unfolded,
        unfolded.unfolded_rows,
        unfolded.unfolded_size,
        plans.hyper_connections,
    ),
    FigureSpec(
        "hc-patterns",
        unfolded.PATTERNS_TITLE,
        "arXiv 2409.19606 describes the patterns; detectors and thresholds are ours",
        "Left: how weights fall with distance. Middle: how much of each input is the embedding. "
        "Right: how much a site reads of the site before it; below the coloured line, and with "
        "rows alike, the two work in parallel. Dashed: at initialisation; dotted: a plain residual "
        "network.",
        unfolded.PATTERNS_DEFINITIONS,
        {"thresholds": "decay 0.05, bottom excess 0.1, coupling 0.1, similarity 0.9", **TRACED},
        unfolded.draw_patterns,
        unfolded.patterns_rows,
        unfolded.patterns_size,
        plans.hyper_connections,
    ),
    FigureSpec(
        "hc-adjacent-cosine",
        adjacent.TITLE,
        "arXiv 2409.19606, cosine of the inputs of neighbouring layers, at small scale",
        "The line is the median over tokens, the band 5 to 95 %. Lower than the dashed line (at "
        "initialisation, grey band): neighbouring sublayers have come to see different inputs.",
        adjacent.DEFINITIONS,
        {"band": "5 to 95 % over tokens of one checkpoint; silent about seeds", **TRACED},
        adjacent.draw,
        adjacent.rows,
        adjacent.size,
        plans.hyper_and_residual,
    ),
    FigureSpec(
        "hc-beta-dynamics",
        dynamics.TITLE,
        "arXiv 2409.19606, beta over training, at small scale",
        "Write weight of every stream at three depths over training, one colour per stream; dashed "
        "where the largest and the smallest began. On the right the effective number of streams, "
        "mean over sites, dashed at step 0, dotted n. Same validation windows at every checkpoint.",
        dynamics.DEFINITIONS,
        {"capture": "at checkpoints", "beta": "token mean of H_post"},
        dynamics.draw,
        dynamics.rows,
        dynamics.size,
        plans.hyper_and_residual,
    ),
    FigureSpec(
        "mhc-gain",
        composites.GAIN_TITLE,
        "arXiv 2512.24880, Amax gain of single and composite mappings, at small scale",
        "How much the product of all mixers up to a site can amplify: forward per destination, "
        "backward per source. Dotted 1: sums are kept exactly; dashed: composites at "
        "initialisation. Right: the composite over all sites. Gains of unconstrained HC may grow "
        "with depth; those of doubly stochastic mixers cannot.",
        composites.GAIN_DEFINITIONS,
        {"gain": "absolute_sum", "average": "mean over tokens of per-token gains", **TRACED},
        composites.draw_gains,
        composites.gain_rows,
        composites.size,
        plans.mixers_of_n4,
    ),
    FigureSpec(
        "spectrum",
        composites.SPECTRUM_TITLE,
        "this package; contraction after 2609.02672",
        "Left: moduli of the eigenvalues of the product of all mixers up to a site. Middle: its "
        "second singular value, what is left of a difference between streams (0: averaged away); "
        "triangles: single mixers. Right: how many directions the streams of a token hold. Dashed: "
        "at initialisation. Copied streams begin at rank 1, whatever the mixer.",
        composites.SPECTRUM_DEFINITIONS,
        {"rank": "raw", "average": "mean over tokens of per-token values", **TRACED},
        composites.draw_spectra,
        composites.spectrum_rows,
        composites.size,
        plans.mixers_of_n4,
    ),
    FigureSpec(
        "ledger",
        unfolded.LEDGER_TITLE,
        "this package; recursion of 2409.19606",
        "Every stream before the readout as a weighted sum of the embedding and all outputs, which "
        "is exact. Rows that look alike are streams that hold the same things. Left: at "
        "initialisation, where writes go where designation put them.",
        unfolded.LEDGER_DEFINITIONS,
        {"ledger": "weight", "average": "token mean", **TRACED},
        unfolded.draw_ledger,
        unfolded.ledger_rows,
        unfolded.ledger_size,
        plans.baseline_and_lss,
    ),
    FigureSpec(
        "phase",
        phase.TITLE,
        "this package; not published elsewhere",
        "Each cell is one learning rate and one multiplier for the connections' parameters: mean "
        "over seeds, and smallest to largest. The orange mark in a colour bar is the value before "
        "training (for the loss it lies beyond the scale). Cells whose ranges overlap are "
        "not told apart.",
        phase.DEFINITIONS,
        {"share": "weight", "model": "as the runs say"},
        phase.draw,
        phase.rows,
        phase.size,
        plans.phase,
        aggregation=phase.AGGREGATION,
    ),
)
"""In the order of the papers, then our own."""
