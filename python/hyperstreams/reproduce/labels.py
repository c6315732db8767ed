"""Names of runs in pictures: the model, and whatever else tells the runs of one figure apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..train import TrainConfig

NAMES = {
    "residual": "residual",
    "hc_static": "HC static",
    "hc": "HC",
    "mhc": "mHC",
    "mhc_lite": "mHC-lite",
    "kromhc": "KromHC",
    "identity": "iHC",
}
EXPANSIONS = {
    "learned_scale": "LSS",
    "constant_scale": "constant scale",
    "embedding": "stream embedding",
    "noise": "noise",
}
TELLING = {
    "n_streams": "n = {}",
    "steps": "{:,} steps",
    "lr": "lr {:g}",
    "connection_lr_multiplier": "connections x{:g}",
    "seed": "seed {}",
}
"""Settings that are added to a name where they differ between runs of one name."""


def describe(settings: Mapping[str, Any]) -> str:
    """Short name of a run's model: ``mHC-lite + LSS``."""
    connection, expand = settings["connection"], settings["expand"]
    name = NAMES.get(connection, connection)
    if connection == "residual" or expand == "replicate":
        return name
    return f"{name} + {EXPANSIONS.get(expand, expand)}"


def settings_labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """One name per run; the settings that tell runs of one model apart are added to it.

    The number of streams is told wherever it varies in the whole set.
    """
    names = [describe(values) for values in settings]
    everywhere = {"n_streams"} if len({values["n_streams"] for values in settings}) > 1 else set()
    labels = []
    for name, values in zip(names, settings, strict=True):
        same = [v for n, v in zip(names, settings, strict=True) if n == name]
        varying = [key for key in TELLING if len({v[key] for v in same}) > 1 or key in everywhere]
        if len(same) > 1 and not varying:
            varying = ["seed"]
        labels.append(", ".join([name, *(TELLING[key].format(values[key]) for key in varying)]))
    return labels


def config_labels(configs: Sequence[TrainConfig]) -> list[str]:
    """:func:`settings_labels` of configs."""
    return settings_labels([config.flat() for config in configs])
