"""expand and reduce on a GPU: against float64, bit-identical reruns, graphs, errors."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}

Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def inputs(
    tokens: int, n: int, width: int, dtype: torch.dtype, *, scale: bool = True, bias: bool = True
) -> Inputs:
    """grad_x, h, scale, bias."""
    generator = torch.Generator().manual_seed(tokens + n + width)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).cuda()

    return (
        random(tokens, n, width).to(dtype),
        random(tokens, width).to(dtype),
        random(n, width) if scale else None,
        random(n, width) if bias else None,
    )


def forward_backward(arguments: Inputs) -> tuple[Tensor, ...]:
    grad_x, h, scale, bias = arguments
    n = grad_x.shape[1]
    x = torch.ops.hyperstreams._expand(h, n, scale, bias)
    return x, *torch.ops.hyperstreams._expand_backward(grad_x, h, n, scale, bias is not None)


def check(arguments: Inputs) -> None:
    grad_x, h, scale, bias = arguments
    x, grad_h, grad_scale, grad_bias = forward_backward(arguments)
    (tokens, n, width), bound = grad_x.shape, BOUNDS[h.dtype]
    g, h64 = grad_x.double(), h.double()[:, None]
    factor = torch.ones(n, width, device=h.device).double() if scale is None else scale.double()
    exact = h64 * factor + (0 if bias is None else bias.double())
    close = torch.testing.assert_close
    close(x.double(), exact, rtol=bound, atol=bound)
    close(grad_h.double(), (factor * g).sum(1), rtol=bound, atol=n * bound)
    bound = 2e-5 * max(tokens, 1) ** 0.5
    if scale is not None:
        close(grad_scale.double(), (h64 * g).sum(0), rtol=1e-4, atol=bound)
    if bias is not None:
        close(grad_bias.double(), g.sum(0), rtol=1e-4, atol=bound)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_agrees_with_float64(dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 4, 5, 8, 16):
        for width in (1, 37, 768, 4096):
            for tokens in (0, 1, 19, 2100):
                check(inputs(tokens, n, width, dtype))
            check(inputs(19, n, width, dtype, scale=False, bias=False))
            check(inputs(19, n, width, dtype, scale=n % 2 == 0, bias=n % 2 == 1))


def test_reruns_have_the_same_bits() -> None:
    arguments = inputs(2500, 4, 768, torch.bfloat16)
    first = forward_backward(arguments)
    for _ in range(20):
        again = forward_backward(arguments)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_replays_from_a_graph() -> None:
    arguments = inputs(65, 4, 256, torch.float32)
    expected = forward_backward(arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forward_backward(arguments)
    for tensor in captured:
        tensor.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))


def test_reduce_runs_fused_with_its_gradient() -> None:
    x = inputs(33, 4, 96, torch.float32)[0].requires_grad_()
    with ops.backend("fused"):
        h = ops.reduce(x)
    torch.testing.assert_close(h.double(), x.double().sum(1), rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(h)
    (grad_x,) = torch.autograd.grad(h, x, weights)
    assert torch.equal(grad_x, weights[:, None].expand_as(x))


def test_mixed_devices_are_refused_in_words() -> None:
    _, h, scale, _ = inputs(3, 4, 8, torch.float32)
    assert scale is not None
    with pytest.raises(RuntimeError, match="scale must be on cuda:0"):
        torch.ops.hyperstreams._expand(h, 4, scale.cpu(), None)
