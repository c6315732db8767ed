"""One op on given arguments, and the judgement of its numbers against float64.

``HYPERSTREAMS_TEST_DEVICE=cuda`` runs the suite on a GPU, whose kernels take no float64.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hyperstreams import ops
from torch import Tensor

DEVICE = os.environ.get("HYPERSTREAMS_TEST_DEVICE", "cpu")
FLOATS = (torch.float32, torch.bfloat16, torch.float16) + (torch.float64,) * (DEVICE == "cpu")
LAYOUTS = ("contiguous", "offset", "sliced", "permuted", "expanded", "strided_channels")
FLOOR = {
    torch.float32: 3e-7,
    torch.bfloat16: 4e-3,
    torch.float16: 5e-4,
    torch.float64: 1e-14,
}
"""Error allowed whatever the eager error is, relative to the sum of magnitudes: a few roundings."""


cpu_only = pytest.mark.skipif(DEVICE != "cpu", reason="about the CPU kernels, or in float64")


def coefficient_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def laid_out(value: Tensor, layout: str) -> Tensor:
    """A tensor equal to ``value`` (``expanded``: to its first row) in another memory layout."""
    if value.dim() == 0 or layout == "contiguous":
        return value
    if layout == "expanded":
        return value[:1].expand(value.shape) if value.shape[0] else value
    if layout == "offset":
        room = value.new_zeros(value.numel() + 3)[3:].view(value.shape)
    elif layout == "sliced":
        room = value.new_zeros([size + 3 for size in value.shape])[
            tuple(slice(1, size + 1) for size in value.shape)
        ]
    elif layout == "permuted":
        room = value.new_zeros(value.shape[-2::-1] + value.shape[-1:])
        room = room.permute(*range(value.dim() - 2, -1, -1), value.dim() - 1)
    else:
        room = value.new_zeros((*value.shape[:-1], 2 * value.shape[-1]))[..., ::2]
    return room.copy_(value)


@dataclass(frozen=True)
class Case:
    """One op on given arguments: tensors are differentiable unless they are None.

    ``roundings`` widens the error floor for longer chains of operations. ``stores_streams``: every
    result depends on streams that were rounded on the way. ``cancelling``: roundings of the
    gradients by these tensors, counted from 0, that are sums whose terms may cancel.
    """

    function: Callable[..., Any]
    tensors: tuple[Tensor | None, ...]
    roundings: int = 1
    stores_streams: bool = False
    cancelling: Mapping[int, int] = field(default_factory=dict)

    def outputs(self, tensors: tuple[Tensor | None, ...], backend: str) -> tuple[Tensor, ...]:
        with ops.backend(backend):  # type: ignore[arg-type]
            result = self.function(*tensors)
        return (
            (result,) if isinstance(result, Tensor) else tuple(r for r in result if r is not None)
        )


def run(
    case: Case, tensors: tuple[Tensor | None, ...], cotangents: list[Tensor] | None, backend: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients of all tensor arguments."""
    leaves = tuple(None if t is None else t.detach().requires_grad_() for t in tensors)
    outputs = case.outputs(leaves, backend)
    if cotangents is None:
        return [o.detach() for o in outputs], []
    wanted = [t for t in leaves if t is not None]
    grads = torch.autograd.grad(outputs, wanted, cotangents, materialize_grads=True)
    return [o.detach() for o in outputs], list(grads)


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm())


def check_against_float64(case: Case, generator: torch.Generator, roundings: int = 1) -> None:
    """Fused outputs and gradients are about as near to float64 as the eager reference's are.

    ``roundings`` widens the floor for long sums, which the kernels make in a fixed number of lanes.
    """
    before = [None if t is None else t.clone() for t in case.tensors]
    shapes = case.outputs(case.tensors, "fused")
    cotangents = [
        torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in shapes
    ]
    fused = run(case, case.tensors, cotangents, "fused")
    eager = run(case, case.tensors, cotangents, "reference")
    doubled = tuple(None if t is None else t.double() for t in case.tensors)
    exact = run(case, doubled, [c.double() for c in cotangents], "reference")
    magnitudes = run(
        case,
        tuple(None if t is None else t.abs() for t in doubled),
        [c.double().abs() for c in cotangents],
        "reference",
    )
    places = [k for k, t in enumerate(case.tensors) if t is not None]
    inputs = [t for t in case.tensors if t is not None]
    for kind, likes in ((0, shapes), (1, inputs)):
        for k, like in enumerate(likes):
            got, want = fused[kind][k], exact[kind][k]
            name = f"{'output' if kind == 0 else 'gradient'} {k}"
            assert got.shape == like.shape, name
            assert got.dtype == like.dtype, name
            if kind == 0:
                assert got.is_contiguous(), name
            assert not got.isnan().any(), name
            scale = float(want.norm()) + float(magnitudes[kind][k].norm())
            widening = case.cancelling.get(places[k], case.roundings) if kind else case.roundings
            floor = roundings * widening * FLOOR[got.dtype]
            if case.stores_streams:
                floor = max(floor, 2 * FLOOR[inputs[0].dtype])
            bound = 2 * error(eager[kind][k], want) + floor * scale
            assert error(got, want) <= bound, (name, error(got, want), bound)
    for tensor, copy in zip(case.tensors, before, strict=True):
        if tensor is not None:
            assert torch.equal(tensor, copy), "an input was written to"
