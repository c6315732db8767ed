"""What a probe costs: a training step with one, sampled or not due, beside a step without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from hyperstreams.models import GPT, GPTConfig

from ..case import Case, Gate, Workload
from ..timing import Call

TOKENS_PER_STEP = 2048
LEVELS = {
    "coefficients": Gate("without", 10, 0.002),
    "streams": Gate("without", 100, 0.01),
    "not_due": Gate("without", 1, 0.005),
}
"""``every``, and the largest share of a step that the level may cost on average at it.

Limits hold for the small preset: of a step of the tiny one Python's own time is a large part. Of a
step that is not sampled, the limit is the noise of the timing.
"""


def _workload(preset: str, level: str, device: torch.device) -> Workload:
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

    return Workload(_probed(model, level, step), {"without": lambda: step})


def _probed(model: GPT, level: str, step: Call) -> Call:
    """A sampled step, or one between samples."""
    # Imported here: a revision that --compare asks for need not have them to time other cases.
    from hyperstreams.diagnostics import Probe
    from hyperstreams.diagnostics.live.probe import COEFFICIENTS

    if level == "not_due":
        idle = Probe(model, every=100, dense=False)

        def not_due() -> None:
            with idle:
                idle.start(1)
                step()
                idle.scalars(1)

        return not_due
    probe = Probe(model, what=COEFFICIENTS if level == "coefficients" else None, every=1)

    def sampled() -> None:
        with probe:
            step()
            probe.scalars(0)

    return sampled


def cases() -> Iterator[Case]:
    for preset in ("tiny", "small"):
        for level, gate in LEVELS.items():
            yield Case(
                name=f"probe/{preset}/{level}",
                build=partial(_workload, preset, level),
                tests=("stream_stats", "probe"),
                tokens=TOKENS_PER_STEP,
                wall_clock=True,
                gate=gate if preset == "small" else None,
            )
