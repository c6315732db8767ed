"""Which runs each figure wants at a scale. Equal settings are one run, whoever asks for them."""

from __future__ import annotations

from typing import Any

from ..train import TrainConfig
from .scales import BUDGETS, Scale

LSS: dict[str, Any] = {"expand": "learned_scale"}
CONSTANT: dict[str, Any] = {"expand": "constant_scale"}
"""LSS without its noise: the control that scales embeddings and leaves the streams equal."""
CONTROL_SEEDS = 3
FACTORIAL_STREAMS = 4
"""mHC-lite has n! logits a site: its dynamic part is not built beyond this many streams."""


def baseline_and_lss(scale: Scale) -> list[TrainConfig]:
    """mHC-lite and mHC-lite + LSS, first seed: figures 1 to 4 and the ledger."""
    return [scale.config(), scale.config(**LSS)]


def baseline(scale: Scale) -> list[TrainConfig]:
    """mHC-lite, first seed: figure 5, whose crosscoders take minutes per run."""
    return [scale.config()]


def loss_curves(scale: Scale) -> list[TrainConfig]:
    """The residual baseline, mHC, mHC-lite and mHC-lite + LSS, first seed."""
    plain = [scale.config(name) for name in ("residual", "mhc")]
    return [*plain, *baseline_and_lss(scale)]


def stream_counts(scale: Scale) -> list[TrainConfig]:
    """Figures 6 and 7: KromHC and mHC for every n, mHC-lite where its n! logits are affordable."""
    return [
        scale.config(connection, n_streams=n)
        for n in scale.stream_counts
        for connection in ("kromhc", "mhc", "mhc_lite")
        if connection != "mhc_lite" or n <= FACTORIAL_STREAMS
    ]


def seeds(scale: Scale) -> list[TrainConfig]:
    """Figure 8: mHC-lite with every seed."""
    return [scale.config(seed=seed) for seed in scale.seeds]


def budget(index: int, scale: Scale) -> list[TrainConfig]:
    """Figures 9 to 11: mHC-lite and LSS, trained 1, 2 or 4 times as long."""
    factor = BUDGETS[index]
    return [scale.config(budget=factor), scale.config(budget=factor, **LSS)]


def mixers_of_n4(scale: Scale) -> list[TrainConfig]:
    """HC without constraint, mHC by Sinkhorn and mHC-lite: what composites are compared on."""
    return [scale.config(name) for name in ("hc", "mhc", "mhc_lite")]


def hyper_connections(scale: Scale) -> list[TrainConfig]:
    """HC (2409.19606), static and dynamic, first seed."""
    return [scale.config(name) for name in ("hc_static", "hc")]


def hyper_and_residual(scale: Scale) -> list[TrainConfig]:
    """Dynamic HC beside mHC-lite."""
    return [scale.config("hc"), scale.config()]


def phase(scale: Scale) -> list[TrainConfig]:
    """Learning rate x multiplier of the connections' learning rate x seeds."""
    rates, multipliers, n_seeds = scale.phase
    return [
        scale.config(lr=rate, connection_lr_multiplier=multiplier, seed=seed)
        for rate in rates
        for multiplier in multipliers
        for seed in scale.seeds[:n_seeds]
    ]


def claims(scale: Scale) -> list[TrainConfig]:
    """K1 to K6: mHC-lite and + LSS with every seed, the constant-scale control with three."""
    wanted: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
        ({}, scale.seeds),
        (LSS, scale.seeds),
        (CONSTANT, scale.seeds[:CONTROL_SEEDS]),
    )
    return [scale.config(seed=seed, **model) for model, seeds in wanted for seed in seeds]
