"""One sublayer's connection work, forward and backward: fused ops against the eager reference.

A case is everything a connection does around a branch: project, coefficients, read, mix_write, and
the gradients of the streams, the branch output and every parameter. The branch itself is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from torch import Tensor

from .timing import paired_times, summarize


@dataclass(frozen=True)
class Case:
    """T tokens, width C, stream dtype and connection; n = 4 streams throughout."""

    tokens: int
    width: int
    dtype: torch.dtype
    connection: str
    n_streams: int = 4


CASES = [
    Case(tokens, width, dtype, connection)
    for connection in ("mhc_lite", "mhc", "hc")
    for tokens, width in ((4096, 384), (2048, 768))
    for dtype in (torch.float32, torch.bfloat16)
]


def sublayer(case: Case) -> Callable[[], None]:
    """A call that runs one forward and backward of ``case``."""
    generator = torch.Generator().manual_seed(0)
    site = hnn.Connection(
        connection=case.connection,
        n_streams=case.n_streams,
        width=case.width,
        site_index=0,
        generator=generator,
    )
    with torch.no_grad():
        if site.phi is not None:
            site.phi.normal_(std=0.02, generator=generator)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(case.dtype)

    x = randn(case.tokens, case.n_streams, case.width).requires_grad_()
    y = randn(case.tokens, case.width).requires_grad_()
    grad_out = randn(case.tokens, case.n_streams, case.width)
    grad_u = randn(case.tokens, case.width)
    inputs = [x, y, *site.parameters()]

    def run() -> None:
        state, u, _, h_post, h_res = site(x)
        out = ops.mix_write(state, y, h_res, h_post)
        torch.autograd.grad([out, u], inputs, [grad_out, grad_u])

    return run


def run_case(case: Case, *, rounds: int) -> dict[str, Any]:
    """Both back ends in turn, in one process."""
    call = sublayer(case)

    def reference() -> None:
        with ops.backend("reference"):
            call()

    times = paired_times({"reference": reference, "fused": call}, rounds=rounds)
    return {
        "tokens": case.tokens,
        "width": case.width,
        "n_streams": case.n_streams,
        "dtype": str(case.dtype).removeprefix("torch."),
        "connection": case.connection,
        "rounds": rounds,
        "times": summarize(times, baseline="reference"),
    }
