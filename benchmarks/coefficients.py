"""The ``coefficients`` op alone, forward and backward: every fused mixer against its reference.

8192 tokens of logits at n = 4, all gradients. Mixers that share a map differ in their settings.
The autograd floor is the same call of an empty ``torch.autograd.Function``: inputs kept, outputs
and gradients at hand, nothing computed. Nothing that is such a Function takes less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hyperstreams import ops
from hyperstreams.mixers import MIXERS, Kronecker, Mixer, Sinkhorn
from torch import Tensor

from .timing import paired_times, summarize

TOKENS, N_STREAMS = 8192, 4

SETTINGS: dict[str, Mixer] = {
    "sinkhorn, softmax start": Sinkhorn(20, "softmax", "rows_first", 1e-6, "source_rows"),
    "kronecker, one factor of 4": Kronecker((4,)),
}
"""Further settings of mixers that are also timed with their own."""


def fused_mixers() -> dict[str, Mixer]:
    """Every registered mixer that has a kernel map, and the settings above."""
    own = {name: mixer() for name, mixer in MIXERS.items()}
    return {
        name: mixer
        for name, mixer in (own | SETTINGS).items()
        if mixer.fused_map_for(N_STREAMS) is not None
    }


def empty_function(outputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> Any:
    """A Function that keeps its inputs and returns what it is given."""

    class Empty(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
            ctx.save_for_backward(*inputs)
            return tuple(out.detach() for out in outputs)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
            assert len(ctx.saved_tensors) == len(gradients)
            return gradients

    return Empty


def calls(mixer: Mixer) -> tuple[Callable[[], None], Callable[[], None]]:
    """One forward and backward with a controller's random logits around the initial ones: of the
    op, and of the empty Function."""
    generator = torch.Generator().manual_seed(0)
    count = 2 * N_STREAMS + mixer.logit_count(N_STREAMS)
    groups = 2 + len(mixer.group_sizes(N_STREAMS))

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    bias = torch.cat([torch.zeros(2 * N_STREAMS), mixer.initial_logits(N_STREAMS)])
    inputs = [randn(TOKENS, count), randn(TOKENS).abs() + 0.5, torch.full((groups,), 0.5), bias]
    leaves = [value.requires_grad_() for value in inputs]
    shapes = ((N_STREAMS,), (N_STREAMS,), (N_STREAMS, N_STREAMS))
    cotangents = [randn(TOKENS, *shape) for shape in shapes]

    def differentiate(outputs: tuple[Tensor | None, ...]) -> None:
        present = [
            (out, of) for out, of in zip(outputs, cotangents, strict=False) if out is not None
        ]
        torch.autograd.grad([out for out, _ in present], leaves, [of for _, of in present])

    def coefficients() -> tuple[Tensor, Tensor, Tensor | None]:
        return ops.coefficients(*leaves, n_streams=N_STREAMS, mixer=mixer)

    results = tuple(out.detach() for out in coefficients() if out is not None)
    empty = empty_function(results, tuple(leaf.detach().clone() for leaf in leaves))
    return lambda: differentiate(coefficients()), lambda: differentiate(empty.apply(*leaves))


def run_coefficients(*, rounds: int) -> dict[str, Any]:
    """Both back ends in turn, mixer by mixer, in one process."""
    rows = {}
    for name, mixer in fused_mixers().items():
        fused, floor = calls(mixer)

        def reference(fused: Callable[[], None] = fused) -> None:
            with ops.backend("reference"):
                fused()

        candidates = {"reference": reference, "fused": fused, "autograd_floor": floor}
        times = paired_times(candidates, rounds=rounds)
        rows[name] = summarize(times, baseline="reference")
    return {"tokens": TOKENS, "n_streams": N_STREAMS, "rounds": rounds, "mixers": rows}
