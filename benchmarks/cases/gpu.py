"""A GPU's sizes: 8,192 tokens of four bfloat16 streams; whole training steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from hyperstreams.models import GPT, GPTConfig

from ..case import Case, Workload
from ..problem import BOTH, FORWARD
from ..timing import Call
from .ops import coefficients_case, fused_mixers, streaming_cases
from .sites import TESTS, site_case

TOKENS, WIDTHS = 8192, (768, 1024, 2048, 4096)
DECODE_TOKENS = (1, 32)
CONNECTIONS = ("mhc", "mhc_lite")
GPU = ("cuda",)
STEPS: dict[str, dict[str, Any]] = {
    "medium": {},
    "wide": {"n_layer": 6, "n_head": 16, "width": 2048},
}
"""Changes to the preset ``medium``: 12 blocks of width 768, context 1,024."""
PRECISIONS = ("bfloat16", "autocast")
"""The whole model in bfloat16; or parameters and streams in float32 under bfloat16 autocast."""
SEQUENCES = 8


def _step(connection: str, changes: dict[str, Any], precision: str, device: torch.device) -> Call:
    """Forward, backward and a fused AdamW step; the coefficients' parameters stay float32."""
    generator = torch.Generator().manual_seed(0)
    config = GPTConfig.preset("medium", connection=connection, **changes)
    model = GPT(config, generator=generator).to(device)
    if precision == "bfloat16":
        model.bfloat16()
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4, fused=True)
    shape = (SEQUENCES, config.block_size)
    tokens, targets = (
        torch.randint(config.vocab_size, shape, generator=generator).to(device) for _ in range(2)
    )

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "autocast"):
            _, loss = model(tokens, targets)
        loss.backward()
        optimizer.step()

    return run


def _step_workload(
    connection: str, changes: dict[str, Any], precision: str, device: torch.device
) -> Workload:
    call = _step(connection, changes, precision, device)
    return Workload(call, {"residual": lambda: _step("residual", changes, precision, device)})


def _site_cases() -> Iterator[Case]:
    for kind in ("boundary", "sublayer"):
        for connection in CONNECTIONS:
            for tokens in (TOKENS, *DECODE_TOKENS):
                for width in WIDTHS:
                    for mode in (FORWARD, BOTH) if tokens == TOKENS else (FORWARD,):
                        yield site_case(
                            f"gpu/{kind}/{connection}/{tokens}x{width}/bfloat16/{mode}",
                            kind=kind,
                            connection=connection,
                            tokens=tokens,
                            width=width,
                            dtype="bfloat16",
                            mode=mode,
                            devices=GPU,
                        )


def cases() -> Iterator[Case]:
    """Boundaries, sublayers, ops, then steps; first what the goals are about."""
    yield from _site_cases()
    shapes = [(TOKENS, width) for width in WIDTHS]
    yield from streaming_cases("gpu/", shapes=shapes, dtypes=("bfloat16",), devices=GPU)
    for name, mixer in fused_mixers().items():
        for mode in (FORWARD, BOTH):
            yield coefficients_case(f"gpu/coefficients/{name}/{mode}", mixer, mode, devices=GPU)
    for size, changes in STEPS.items():
        for connection, precision in product(CONNECTIONS, PRECISIONS):
            yield Case(
                name=f"gpu/step/{size}/{connection}/{precision}",
                build=partial(_step_workload, connection, changes, precision),
                tests=(*TESTS, "model"),
                dtype="bfloat16",
                tokens=SEQUENCES * 1024,
                devices=GPU,
                wall_clock=True,
            )
