"""A whole training step of the demo's tiny model: each connection against the plain residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hyperstreams.models import GPT, GPTConfig

from .timing import paired_times, summarize

CONNECTIONS = ("residual", "hc", "mhc_lite", "mhc")
TOKENS_PER_STEP = 2048


def training_step(connection: str) -> Callable[[], None]:
    """Forward, backward, clipping and AdamW on 2,048 random tokens (tiny preset)."""
    generator = torch.Generator().manual_seed(0)
    config = GPTConfig.preset("tiny", connection=connection)
    model = GPT(config, generator=generator)
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-3)
    shape = (TOKENS_PER_STEP // config.block_size, config.block_size)
    tokens = torch.randint(config.vocab_size, shape, generator=generator)
    targets = torch.randint(config.vocab_size, shape, generator=generator)

    def run() -> None:
        optimizer.zero_grad()
        _, loss = model(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def run_steps(*, rounds: int) -> dict[str, Any]:
    """All connections in turn; ``ratio`` is the residual's time over the connection's."""
    times = paired_times({name: training_step(name) for name in CONNECTIONS}, rounds=rounds)
    return {
        "preset": "tiny",
        "tokens": TOKENS_PER_STEP,
        "rounds": rounds,
        "times": summarize(times, baseline="residual"),
    }
