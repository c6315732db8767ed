"""What a probe costs: a training step with one, sampled or not due, beside a step without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from hyperstreams.diagnostics import Probe
from hyperstreams.diagnostics.live.probe import COEFFICIENTS, STREAMS
from hyperstreams.models import GPT, GPTConfig

from ..case import Case, Gate, Workload
from ..timing import Call

TOKENS_PER_STEP = 2048
LEVELS = {
    "coefficients": (COEFFICIENTS, Gate("without", 10, 0.002)),
    "streams": (STREAMS, Gate("without", 100, 0.01)),
    "not_due": (None, Gate("without", 1, 0.005)),
}
"""Quantities, ``every``, and the largest share of a step that they may cost on average at it.

Limits hold for the small preset: of a step of the tiny one Python's own time is a large part. Of a
step that is not sampled, the limit is the noise of the timing.
"""


def _workload(preset: str, what: tuple[str, ...] | None, device: torch.device) -> Workload:
    """Forward, backward and AdamW of one model; what differs is the probe around it."""
    generator = torch.Generator().manual_seed(0)
    config = GPTConfig.preset(preset, connection="mhc_lite", vocab_size=256, block_size=128)
    model = GPT(config, generator=generator).to(device)
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4)
    shape = (TOKENS_PER_STEP // config.block_size, config.block_size)
    tokens = torch.randint(config.vocab_size, shape, generator=generator).to(device)
    targets = torch.randint(config.vocab_size, shape, generator=generator).to(device)

    def step() -> None:
        optimizer.zero_grad()
        model(tokens, targets)[1].backward()
        optimizer.step()

    return Workload(_probed(model, what, step), {"without": lambda: step})


def _probed(model: GPT, what: tuple[str, ...] | None, step: Call) -> Call:
    """A sampled step, or with ``what=None`` one between samples."""
    if what is None:
        idle = Probe(model, every=100, dense=False)

        def not_due() -> None:
            with idle:
                idle.start(1)
                step()
                idle.scalars(1)

        return not_due
    probe = Probe(model, what=what, every=1)

    def sampled() -> None:
        with probe:
            step()
            probe.scalars(0)

    return sampled


def cases() -> Iterator[Case]:
    for preset in ("tiny", "small"):
        for level, (what, gate) in LEVELS.items():
            yield Case(
                name=f"probe/{preset}/{level}",
                build=partial(_workload, preset, what),
                tests=("stream_stats", "probe"),
                tokens=TOKENS_PER_STEP,
                gate=gate if preset == "small" else None,
            )
