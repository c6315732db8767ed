"""The sizes at which figures are made: smoke (tests), tiny, small, paper; and the one seed list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..train import RunError, TrainConfig, build_config

SEEDS = (0, 1, 2, 3, 4)
"""The seeds of every figure and every claim; a figure that wants fewer takes the first ones."""
BUDGETS = (1, 2, 4)
"""Lengths of training in figures 9 to 11, each with a cosine of its own."""
EVALUATIONS = 20
"""Evaluations of a run, at even distances."""
CHECKPOINTS = 8
"""Checkpoints of a run, at even distances; the streams are captured at each."""


@dataclass(frozen=True)
class Scale:
    """One size of everything.

    ``settings`` are flat settings of a training run; ``steps`` those of one budget. ``rate`` is the
    assumed arithmetic in operations per second that estimates of time use until runs
    have been timed; ``machine`` says whose. ``trains`` False: commands and costs are
    printed, nothing is trained. ``phase`` holds learning rates, multipliers and number of
    seeds of the phase picture.
    """

    name: str
    about: str
    machine: str
    rate: float
    steps: int
    settings: Mapping[str, object]
    n_seeds: int = len(SEEDS)
    stream_counts: tuple[int, ...] = (2, 4, 8, 16)
    phase: tuple[tuple[float, ...], tuple[float, ...], int] = ((), (), 1)
    trains: bool = True

    @property
    def seeds(self) -> tuple[int, ...]:
        return SEEDS[: self.n_seeds]

    def config(
        self,
        connection: str = "mhc_lite",
        *,
        seed: int = SEEDS[0],
        budget: int = 1,
        **overrides: object,
    ) -> TrainConfig:
        """Settings of one run; records, evaluations and checkpoints at even distances."""
        steps = self.steps * budget
        return build_config(
            {
                **self.settings,
                "connection": connection,
                "seed": seed,
                "steps": steps,
                "eval_every": max(steps // EVALUATIONS, 1),
                "checkpoint_every": max(steps // CHECKPOINTS, 1),
                **overrides,
            }
        )

    def on(self, **settings: object) -> Scale:
        """The same scale with other settings: another text, another device."""
        return replace(self, settings={**self.settings, **settings})


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="smoke",
            about="a few steps of a model of width 32, for tests of the machinery; shows nothing",
            machine="one CPU core",
            rate=2e9,
            steps=8,
            n_seeds=2,
            stream_counts=(2, 8),
            phase=((1e-3, 1e-2), (1.0, 10.0), 2),
            settings={
                "preset": "tiny",
                "n_layer": 2,
                "n_head": 2,
                "width": 32,
                "block_size": 32,
                "batch_size": 4,
                "lr": 1e-2,
                "warmup_steps": 2,
                "eval_windows": 8,
                "log_every": 2,
                "tokenizer": "byte",
            },
        ),
        Scale(
            name="tiny",
            about="4 blocks of width 96 on the built-in text: a figure in minutes on two CPU cores",
            machine="two CPU cores",
            rate=6e10,
            steps=600,
            phase=((1e-3, 2.5e-3, 5e-3), (1.0, 3.0, 10.0), 2),
            settings={
                "preset": "tiny",
                "batch_size": 16,
                "lr": 5e-3,
                "warmup_steps": 100,
                "tokenizer": "byte",
            },
        ),
        Scale(
            name="small",
            about="the released small shape with context 512 on 65 M tokens: minutes on one GPU",
            machine="one data-centre GPU, bfloat16",
            rate=5e13,
            steps=2000,
            phase=((3e-4, 1e-3, 3e-3), (1.0, 3.0, 10.0), 2),
            settings={
                "preset": "small",
                "block_size": 512,
                "batch_size": 64,
                "lr": 1e-3,
                "warmup_steps": 200,
                "tokenizer": "byte",
                "device": "cuda",
                "autocast": "bfloat16",
            },
        ),
        Scale(
            name="paper",
            about="the released medium model and recipe; commands and costs are printed",
            machine="one H100-class GPU, bfloat16",
            rate=1e14,
            steps=10_000,
            phase=((3e-4, 6e-4, 1.2e-3), (1.0, 3.0, 10.0), 3),
            trains=False,
            settings={
                "preset": "medium",
                "dataset": "data/openwebtext",
                "tokenizer": "gpt2",
                "batch_size": 16,
                "accumulation": 8,
                "lr": 6e-4,
                "warmup_steps": 200,
                "connection_policy": "paper",
                "eval_windows": 512,
                "device": "cuda",
                "autocast": "bfloat16",
                "compile": True,
            },
        ),
    )
}
"""Every scale by the name that ``--scale`` takes."""


def get_scale(name: str) -> Scale:
    """A scale by name, or a worded error."""
    if name not in SCALES:
        raise RunError(f"scale: expected one of {', '.join(SCALES)}, got {name!r}")
    return SCALES[name]
