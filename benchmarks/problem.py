"""A differentiable function with its arguments, and the ways to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hyperstreams import ops
from torch import Tensor

from .case import Factory, Workload
from .timing import Call

FORWARD, RECORDED, BOTH = "forward", "forward-recorded", "forward+backward"
"""Without gradients; with the graph recorded and dropped; with the gradients of every leaf."""


@dataclass(frozen=True)
class Problem:
    """``function(*tensors)`` gives a tensor or a tuple of tensors and Nones.

    parameters : leaves that the function uses besides its arguments.
    """

    function: Callable[..., Any]
    tensors: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...] = ()

    def call(self, mode: str, *, compiled: Callable[..., Any] | None = None) -> Call:
        """One call in ``mode``; gradients are of all tensors and parameters.

        compiled : called in place of the function.
        """
        function, tensors = compiled or self.function, self.tensors
        leaves = [*tensors, *self.parameters]
        for leaf in leaves:
            leaf.requires_grad_(mode != FORWARD)
        if mode in (FORWARD, RECORDED):
            return lambda: function(*tensors)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            cotangents = [
                torch.randn(out.shape, generator=generator).to(out.device, out.dtype)
                for out in _present(self.function(*tensors))
            ]

        def both() -> None:
            torch.autograd.grad(_present(function(*tensors)), leaves, cotangents)

        return both

    def workload(
        self, mode: str, *, peers: dict[str, Callable[[], Problem]] | None = None
    ) -> Workload:
        """Timed against the eager reference, ``torch.compile`` of it, and peers."""
        call = self.call(mode)
        baselines: dict[str, Factory] = {
            "eager": lambda: by_reference(call),
            "compiled": lambda: self._compiled(mode),
        }
        for name, make in (peers or {}).items():
            baselines[name] = partial(_peer_call, make, mode)
        return Workload(call, baselines)

    def autograd_floor(self) -> Call:
        """The call of an empty ``torch.autograd.Function``: inputs kept, outputs and gradients at
        hand, nothing computed. No op that is such a Function takes less."""
        with torch.no_grad():
            outputs = tuple(out.clone() for out in _present(self.function(*self.tensors)))
        gradients = tuple(tensor.detach().clone() for tensor in self.tensors)

        class Empty(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
                ctx.save_for_backward(*inputs)
                return tuple(out.detach() for out in outputs)

            @staticmethod
            def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
                assert len(ctx.saved_tensors) == len(gradients)
                return gradients

        return Problem(Empty.apply, self.tensors).call(BOTH)

    def _compiled(self, mode: str) -> Call:
        torch.compiler.reset()
        compiled = torch.compile(self.function, fullgraph=True, dynamic=False)
        return by_reference(self.call(mode, compiled=compiled))


def by_reference(call: Call) -> Call:
    """The same call on the eager reference."""

    def run() -> None:
        with ops.backend("reference"):
            call()

    return run


def _present(outputs: Tensor | Iterable[Tensor | None]) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [out for out in outputs if out is not None]


def _peer_call(make: Callable[[], Problem], mode: str) -> Call:
    return make().call(mode)
