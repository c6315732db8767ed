"""Which crosscoders are trained on a run, and how large they are for a model of its width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..diagnostics.crosscoder import CrosscoderConfig, Sites
from ..diagnostics.crosscoder.sites import Variant
from ..train import RunError
from .runs import CapturedRun

Control = Literal["none", "shuffled", "identical", "random_weights"]
CONTROLS: dict[str, str] = {
    "none": "the trained model's streams",
    "shuffled": "streams permuted independently for every token: shares must become uniform",
    "identical": "every stream replaced by the mean stream: shares must be 1/n",
    "random_weights": "the same model with its initial weights and designated streams",
}
"""What each coder is trained on (diagnostics of shares mean little without the others)."""


FORMAT = "hyperstreams.crosscoder_job.v2"
"""Results of another format are made anew."""


@dataclass(frozen=True)
class Job:
    """One variant of a crosscoder on one run: one coder (``joint``), or one per layer or stream.

    windows : token windows that the model reads at once. buffer_batches : size of the shuffle
    buffer in batches. eval_windows : held-out windows for every number. splice_windows : of these,
    for the loss under the reconstruction.
    """

    config: CrosscoderConfig
    layers: tuple[int, ...]
    variant: Variant = "joint"
    control: Control = "none"
    windows: int = 16
    buffer_batches: int = 64
    eval_windows: int = 128
    splice_windows: int = 32

    @property
    def name(self) -> str:
        """What differs between the jobs of a figure."""
        weighting = "-concatenated" if self.config.l1_weighting == "concatenated_norm" else ""
        activation = self.config.activation + (weighting if self.config.activation == "l1" else "")
        centre = "-centred" if self.config.centre else ""
        seed = f"-seed{self.config.seed}" if self.config.seed else ""
        return f"{self.variant}-{activation}-{self.config.norm}{centre}-{self.control}{seed}"

    def sites(self, run: CapturedRun) -> Sites:
        n_layer = run.loaded.config.model.n_layer
        if not self.layers or max(self.layers) >= n_layer or min(self.layers) < 0:
            raise RunError(
                f"crosscoder: layers: expected some of 0 to {n_layer - 1}, got {list(self.layers)}"
            )
        return Sites(tuple(sorted(set(self.layers))), run.loaded.config.model.n_streams)

    def flat(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        own = {k: v for k, v in vars(self).items() if k != "config"}
        return {**own, "layers": list(self.layers), "config": self.config.flat()}

    def identity(self, run: CapturedRun) -> str:
        """Hash of everything that the result depends on: settings, weights, text, seed."""
        what = [FORMAT, self.flat(), run.checkpoint_sha256, run.data_sha256, run.seed]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]

    def folder_name(self, run: CapturedRun) -> str:
        """Name of the job and the start of its identity: no other job or weights has it."""
        return f"{self.name}-{self.identity(run)[:8]}"


def recipe(run: CapturedRun) -> Job:
    """The job for a model of this width: even layers, BatchTopK, sites scaled to equal norm.

    Up to width 64: seconds, for tests. Up to 192: 1024 latents and 0.3 M tokens, about a minute of
    two CPU cores. Up to 640: 8192 latents and 25 M tokens, minutes of a GPU. Above: 16384 latents
    and 100 M tokens.
    """
    model = run.loaded.config.model
    layers = tuple(range(0, model.n_layer, 2))
    if model.width <= 64:
        config = CrosscoderConfig(
            n_latents=64, k=4, steps=30, batch_size=64, lr=3e-3, l1_weight=0.3, log_every=10
        )
        return Job(config, layers, windows=8, buffer_batches=2, eval_windows=16, splice_windows=8)
    if model.width <= 192:
        return Job(CrosscoderConfig(steps=300), layers)
    if model.width <= 640:
        config = CrosscoderConfig(n_latents=8192, k=32, steps=6000, batch_size=4096, lr=3e-4)
        return Job(config, layers, windows=64, eval_windows=256)
    config = CrosscoderConfig(n_latents=16384, k=64, steps=25_000, batch_size=4096, lr=2e-4)
    return Job(config, layers, windows=64, eval_windows=256)


def figure_jobs(main: Job) -> list[Job]:
    """The main job and what it is read against: controls, other normalisation, variant and loss."""
    controls = [replace(main, control=c) for c in get_args(Control) if c != main.control]
    return [
        main,
        *controls,
        replace(main, config=replace(main.config, norm="global")),
        replace(main, variant="per_layer"),
        replace(main, config=replace(main.config, activation="l1")),
    ]


def describe_job(job: Job, main: Job) -> str:
    """How ``job`` differs from ``main``, in words."""
    words: Sequence[str] = [
        {"shuffled": "shuffled streams", "identical": "identical streams"}.get(
            job.control, "random weights" if job.control == "random_weights" else ""
        ),
        {"per_layer": "one coder per layer", "per_stream": "one coder per stream"}.get(
            job.variant, ""
        )
        if job.variant != main.variant
        else "",
        f"norm {job.config.norm}" if job.config.norm != main.config.norm else "",
        "L1" if job.config.activation == "l1" != main.config.activation else "",
    ]
    return ", ".join(word for word in words if word) or "trained model"
