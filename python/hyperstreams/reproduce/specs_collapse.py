"""Figures 1 to 11 of the diagnosis paper (arXiv 2606.03483), and the loss curves: their words."""

from __future__ import annotations

from functools import partial

from . import loss, mixers, panels, plans, seeds, states, sweep, usage
from .scales import BUDGETS
from .spec import FigureSpec

SPECS = (
    FigureSpec(
        "fig1",
        mixers.TITLE,
        "arXiv 2606.03483, figure 1, at small scale",
        "Each square is H_res averaged over tokens: how much of a source stream (column) goes "
        "into a destination (row). White is 1/n, what plain averaging would give; a red "
        "diagonal on blue is the identity. Compare trained with initial: these mixers "
        "start near the identity. On the right, the off-diagonal mass of every site, "
        "with its initial value dashed and full averaging dotted; grey where it has no effect: "
        "copies of one stream are mixed into the same copies, whatever the mixer.",
        mixers.DEFINITIONS,
        {"mixer": "token mean", "orientation": "destination_rows"},
        mixers.draw,
        mixers.rows,
        mixers.size,
        plans.baseline_and_lss,
    ),
    FigureSpec(
        "fig2",
        usage.TITLE,
        "arXiv 2606.03483, figure 2, at small scale",
        "Wide bars: share of each stream in what a site reads (H_pre) and where it writes "
        "(H_post), averaged over tokens. The pale bar to the left and the black dashes are the "
        "same at initialisation, where every site has a favoured stream already. On the right "
        "the effective number of streams; below the dashed line the site uses fewer streams "
        "than it was initialised to.",
        usage.DEFINITIONS,
        {"share": "weight", "average": "mean_of_ratios", "effective_streams": "entropy"},
        usage.draw,
        usage.rows,
        usage.size,
        plans.baseline_and_lss,
    ),
    FigureSpec(
        "fig3",
        states.IMBALANCE_TITLE,
        "arXiv 2606.03483, figure 3, at small scale (its left panel is not recoverable; norm "
        "share and cosine are ours)",
        "One line per stream, the stream with the largest mean write share thicker; dashed "
        "with a grey band (smallest to largest stream): the model at initialisation. Streams "
        "that part from the dashed line have grown apart in norm; a falling cosine says that "
        "they hold different directions. A stream with a large norm does not dominate the "
        "logits where the readout normalises every stream.",
        states.definitions(states.IMBALANCE_PANELS),
        {"norm": "token mean of L2", "norm_share": "ratio_of_means", "cosine": "raw"},
        states.draw_imbalance,
        states.imbalance_rows,
        states.imbalance_size,
        plans.baseline_and_lss,
    ),
    FigureSpec(
        "fig4",
        states.CURVATURE_TITLE,
        "arXiv 2606.03483, figure 4, at small scale",
        "Mean angle between one step along the token sequence and the next: 0 is a straight "
        "line, 120 degrees (dotted) independent tokens; on the right, between the states "
        "themselves (independent: 90). Dashed: the model at initialisation. The thick line is "
        "the stream written to most. Streams share their vectors, so low curvature is not "
        "evidence independent of figures 2 and 3.",
        states.definitions(states.CURVATURE_PANELS),
        {"left": "difference", "right": "position", "zero_steps": "skipped"},
        states.draw_curvature,
        states.curvature_rows,
        states.curvature_size,
        plans.baseline_and_lss,
    ),
    FigureSpec(
        "fig6",
        "Use of streams and their norms for several numbers of streams",
        "arXiv 2606.03483, figure 6, at small scale; the parametrisation of the paper's n = 8 and "
        "16 is not published (mHC-lite's n! logits cannot be built there), hence KromHC and mHC",
        "One line per stream over the sites; the stream with the largest mean write share thicker. "
        "Dashed: at initialisation, of shares the largest at each site; dotted: even use, 1/n. The "
        "share of a favoured stream falls with n at initialisation already (0.73, 0.48, 0.28, "
        "0.15): compare lines with their own dashes, not rows with each other.",
        panels.USAGE_DEFINITIONS,
        {"share": "weight", "average": "mean_of_ratios", "norm": "token mean of L2"},
        panels.draw_usage_grid,
        partial(panels.usage_rows, "fig6"),
        panels.usage_size,
        plans.stream_counts,
    ),
    FigureSpec(
        "fig7",
        sweep.TITLE,
        "arXiv 2606.03483, figure 7, at small scale; KromHC and mHC at every n, mHC-lite where its "
        "n! logits are affordable",
        "Each square is H_res averaged over tokens, destinations in rows, sources in columns, on "
        "the scale of figure 1 (white 1/n, red 1, blue 0). Above it the off-diagonal mass, in "
        "brackets at initialisation; full averaging would be 1 - 1/n.",
        sweep.DEFINITIONS,
        {"mixer": "token mean", "orientation": "destination_rows"},
        sweep.draw,
        sweep.rows,
        sweep.size,
        plans.stream_counts,
    ),
    FigureSpec(
        "fig8",
        seeds.TITLE,
        "arXiv 2606.03483, figure 8, at small scale; the same validation windows for all seeds "
        "(the original draws them anew, which adds noise)",
        "The last 60 % of training. Thin lines are seeds, the thick one their mean, the band one "
        "standard deviation to both sides. Differences between models inside the band do not rank "
        "them.",
        seeds.DEFINITIONS,
        {"split": "validation", "unit": "nats per byte"},
        seeds.draw,
        seeds.rows,
        seeds.size,
        plans.seeds,
        aggregation=seeds.AGGREGATION,
        needs_streams=False,
    ),
    *(
        FigureSpec(
            f"fig{9 + index}",
            f"Use of streams at {factor} x the budget, mHC-lite above LSS",
            f"arXiv 2606.03483, figure {9 + index}, at small scale: budgets 1.3, 2.6 and 5.2 "
            "billion tokens there; the panels of figure 6, which is our reading",
            "As figure 6. Every budget is a training of its own, with a complete cosine. Longer "
            "training lets static logits travel further and, with weight decay on them, lets "
            "them decay: growth with the budget alone does not show learning.",
            panels.USAGE_DEFINITIONS,
            {"share": "weight", "average": "mean_of_ratios", "budget": f"{factor} x"},
            panels.draw_usage_grid,
            partial(panels.usage_rows, f"fig{9 + index}"),
            panels.usage_size,
            partial(plans.budget, index),
        )
        for index, factor in enumerate(BUDGETS)
    ),
    FigureSpec(
        "loss",
        loss.TITLE,
        "this package",
        "Validation loss over training, the same windows for every run; dashed: before the "
        "first step. The right panel enlarges the end. Single runs differ between seeds: "
        "curves that lie close do not rank the models.",
        loss.DEFINITIONS,
        {"split": "validation", "unit": "nats per byte"},
        loss.draw,
        loss.rows,
        loss.size,
        plans.loss_curves,
        needs_streams=False,
    ),
)
"""In the order of the paper."""
