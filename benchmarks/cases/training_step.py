"""A whole training step of the demo's tiny model: each connection against the plain residual."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from hyperstreams.models import GPT, GPTConfig

from ..case import Case, Workload
from ..problem import by_reference
from ..timing import Call
from .sites import TESTS

CONNECTIONS = ("hc", "mhc_lite", "mhc")
TOKENS_PER_STEP = 2048


def training_step(connection: str, device: torch.device) -> Call:
    """Forward, backward, clipping and AdamW on 2,048 random tokens (tiny preset)."""
    generator = torch.Generator().manual_seed(0)
    config = GPTConfig.preset("tiny", connection=connection)
    model = GPT(config, generator=generator).to(device)
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-3)
    shape = (TOKENS_PER_STEP // config.block_size, config.block_size)
    tokens = torch.randint(config.vocab_size, shape, generator=generator).to(device)
    targets = torch.randint(config.vocab_size, shape, generator=generator).to(device)

    def run() -> None:
        optimizer.zero_grad()
        _, loss = model(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def _workload(connection: str, device: torch.device) -> Workload:
    return Workload(
        training_step(connection, device),
        {
            "residual": lambda: training_step("residual", device),
            "eager": lambda: by_reference(training_step(connection, device)),
        },
    )


def cases() -> Iterator[Case]:
    for connection in CONNECTIONS:
        yield Case(
            name=f"step/tiny/{connection}",
            build=partial(_workload, connection),
            tests=(*TESTS, "model"),
            tokens=TOKENS_PER_STEP,
            wall_clock=True,
        )
