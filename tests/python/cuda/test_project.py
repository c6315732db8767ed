"""project on a GPU: against float64, bit-identical reruns and batches, graphs, errors."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EPS = 1e-2
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 4e-3, torch.float16: 5e-4}

Inputs = tuple[Tensor, Tensor, Tensor | None]


def inputs(
    tokens: int,
    n: int,
    width: int,
    count: int,
    dtype: torch.dtype,
    *,
    weighted: bool = True,
    padding: int = 0,
) -> Inputs:
    """x, phi, norm_weight; x inside wider memory when padded."""
    generator = torch.Generator().manual_seed(tokens + n + width + count)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).cuda()

    x = random(tokens, n, width + padding).to(dtype)[..., padding:]
    return x, random(count, n * width) * 0.05, random(n * width) if weighted else None


def forward_backward(arguments: Inputs, position: int = 0) -> tuple[Tensor, ...]:
    """logits, inv_rms, grad_x, grad_phi, grad_norm_weight under fixed gradients."""
    x, phi, norm_weight = arguments
    logits, inv_rms = torch.ops.hyperstreams._project(x, phi, norm_weight, EPS, position)
    grads = gradients(logits, inv_rms)
    return (
        logits,
        inv_rms,
        *torch.ops.hyperstreams._project_backward(
            *grads, x, phi, norm_weight, inv_rms, EPS, position
        ),
    )


def gradients(logits: Tensor, inv_rms: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(logits.shape, generator=generator).cuda(),
        torch.randn(inv_rms.shape, generator=generator).cuda(),
    )


def check(arguments: Inputs, position: str = "inside") -> None:
    x, phi, norm_weight = arguments
    index = ("inside", "outside", "floor").index(position)
    actual = forward_backward(arguments, index)
    leaves = [t.detach().double().requires_grad_() for t in arguments if t is not None]
    with ops.backend("reference"):
        norm = leaves[2] if norm_weight is not None else None
        exact = ops.project(leaves[0], leaves[1], norm, eps=EPS, eps_position=position)
    grads = tuple(g.double() for g in gradients(*actual[:2]))
    expected = [*exact, *torch.autograd.grad(exact, leaves, grads)]
    for k, (a, e) in enumerate(zip(actual, expected, strict=False)):
        assert a.shape == e.shape
        rounding = ROUNDING[x.dtype] if k == 2 else 0.0
        error = (a.double() - e).norm()
        assert error <= (rounding + 5e-6) * e.norm() + 1e-9, (k, x.shape, phi.shape, position)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_agrees_with_float64(dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 4, 5, 8, 16):
        for width in (1, 37, 768, 1025):
            for tokens, padding in [(0, 0), (1, 0), (19, 1), (700, 8), (2100, 0)]:
                check(inputs(tokens, n, width, n * (n + 2), dtype, padding=padding))
    for count in (1, 7, 16, 32, 33):
        check(inputs(70, 4, 256, count, dtype, weighted=False))
    check(inputs(8192, 4, 768, 24, dtype))
    check(inputs(70000, 1, 64, 3, dtype))


@pytest.mark.parametrize("position", ["inside", "outside", "floor"])
def test_every_eps_position(position: str) -> None:
    check(inputs(33, 4, 96, 24, torch.float32), position)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reruns_have_the_same_bits_on_any_stream(dtype: torch.dtype) -> None:
    arguments = inputs(2500, 4, 768, 24, dtype)
    first = forward_backward(arguments)
    for _ in range(20):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = forward_backward(arguments)
        stream.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_have_the_same_bits_in_every_batch(dtype: torch.dtype) -> None:
    x, phi, norm_weight = inputs(70000, 4, 168, 24, dtype)
    logits, inv_rms = torch.ops.hyperstreams._project(x, phi, norm_weight, EPS, 0)
    for tokens in (1, 512, 513, 2048, 2049, 65536):
        few = torch.ops.hyperstreams._project(x[:tokens], phi, norm_weight, EPS, 0)
        assert torch.equal(few[0], logits[:tokens])
        assert torch.equal(few[1], inv_rms[:tokens])


@pytest.mark.parametrize("tokens", [65, 600])
def test_replays_from_a_graph(tokens: int) -> None:
    arguments = inputs(tokens, 4, 256, 24, torch.bfloat16)
    x, phi, norm_weight = arguments
    grads = gradients(*torch.ops.hyperstreams._project(x, phi, norm_weight, EPS, 0))

    def run() -> tuple[Tensor, ...]:
        logits, inv_rms = torch.ops.hyperstreams._project(x, phi, norm_weight, EPS, 0)
        return (
            logits,
            inv_rms,
            *torch.ops.hyperstreams._project_backward(*grads, x, phi, norm_weight, inv_rms, EPS, 0),
        )

    expected = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for tensor in captured:
        tensor.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))


def test_mixed_devices_are_refused_in_words() -> None:
    x, phi, norm_weight = inputs(3, 4, 8, 24, torch.float32)
    assert norm_weight is not None
    with pytest.raises(RuntimeError, match="phi must be on cuda:0"):
        torch.ops.hyperstreams._project(x, phi.cpu(), norm_weight, EPS, 0)
    with pytest.raises(RuntimeError, match="norm_weight must be on cuda:0"):
        torch.ops.hyperstreams._project(x, phi, norm_weight.cpu(), EPS, 0)
