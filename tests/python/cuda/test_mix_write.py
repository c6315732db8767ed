"""mix_write on a GPU: against float64, bit-identical reruns, streams, graphs, errors."""

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

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor | None]


def inputs(
    tokens: int,
    n: int,
    width: int,
    dtype: torch.dtype,
    *,
    y_dtype: torch.dtype | None = None,
    mix: bool = True,
    static: bool = False,
    bias: bool = False,
    padding: int = 0,
) -> Inputs:
    """grad_out, x, y, h_res, h_post, bias; streams inside wider memory when padded."""
    generator = torch.Generator().manual_seed(tokens + n + width)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).cuda()

    def streams() -> Tensor:
        return random(tokens, n, width + padding).to(dtype)[..., padding:]

    lead = () if static else (tokens,)
    return (
        streams(),
        streams(),
        random(tokens, width).to(y_dtype or dtype),
        random(*lead, n, n) if mix else None,
        random(*lead, n),
        random(width) if bias else None,
    )


def forward_backward(arguments: Inputs) -> tuple[Tensor, ...]:
    x_out = torch.ops.hyperstreams._mix_write(*arguments[1:])
    return x_out, *torch.ops.hyperstreams._mix_write_backward(*arguments)


def check(arguments: Inputs) -> None:
    grad_out, x, y, h_res, h_post, bias = arguments
    (tokens, n, width), bound = x.shape, BOUNDS[x.dtype]
    x_out, grad_x, grad_y, grad_h_res, grad_h_post, grad_bias = forward_backward(arguments)
    assert grad_y.dtype == y.dtype
    g, x64, branch = grad_out.double(), x.double(), y.double()
    branch = branch if bias is None else branch + bias.double()
    mix = torch.eye(n, device=x.device).double() if h_res is None else h_res.double()
    mix, post = mix.expand(tokens, n, n), h_post.double().expand(tokens, n)
    close = torch.testing.assert_close
    exact = torch.einsum("tji,tic->tjc", mix, x64) + post[..., None] * branch[:, None]
    close(x_out.double(), exact, rtol=bound, atol=n * bound)
    close(grad_x.double(), torch.einsum("tji,tjc->tic", mix, g), rtol=bound, atol=n * bound)
    exact_y = torch.einsum("tj,tjc->tc", post, g)
    y_bound = max(bound, BOUNDS[y.dtype])
    close(grad_y.double(), exact_y, rtol=y_bound, atol=n * y_bound)

    def summed(actual: Tensor, per_token: Tensor, *, over_tokens: bool) -> None:
        terms = width * (max(tokens, 1) if over_tokens else 1)
        exact = per_token.sum(0) if over_tokens else per_token
        close(actual.double(), exact, rtol=1e-4, atol=3e-5 * max(1.0, terms**0.5))

    if h_res is not None:
        summed(grad_h_res, torch.einsum("tjc,tic->tji", g, x64), over_tokens=h_res.dim() == 2)
    summed(grad_h_post, torch.einsum("tjc,tc->tj", g, branch), over_tokens=h_post.dim() == 1)
    if bias is not None:
        summed(grad_bias, exact_y, over_tokens=True)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_agrees_with_float64(dtype: torch.dtype, static: bool) -> None:
    for n in (1, 2, 3, 4, 5, 8, 16):
        for width in (1, 37, 768, 1025, 4096):
            for tokens, padding in [(0, 0), (1, 0), (19, 1), (2100, 8)]:
                check(inputs(tokens, n, width, dtype, static=static, bias=True, padding=padding))
            check(inputs(19, n, width, dtype, mix=False, static=static, bias=static))


def test_branch_may_have_another_type() -> None:
    for dtype in BOUNDS:
        for y_dtype in BOUNDS:
            check(inputs(33, 4, 96, dtype, y_dtype=y_dtype))
            check(inputs(33, 4, 41, dtype, y_dtype=y_dtype, mix=False, bias=True))


@pytest.mark.parametrize("static", [False, True])
def test_reruns_have_the_same_bits_on_any_stream(static: bool) -> None:
    arguments = inputs(2500, 4, 768, torch.bfloat16, static=static, bias=True)
    first = forward_backward(arguments)
    for _ in range(20):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = forward_backward(arguments)
        stream.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_replays_from_a_graph() -> None:
    arguments = inputs(65, 4, 256, torch.float32, static=True, bias=True)
    expected = forward_backward(arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forward_backward(arguments)
    for tensor in captured:
        tensor.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))


def test_has_the_bits_of_the_cpu() -> None:
    _, x, y, h_res, h_post, _ = inputs(50, 4, 129, torch.bfloat16)
    assert h_res is not None
    on_cpu = ops.mix_write(x.cpu(), y.cpu(), h_res.cpu(), h_post.cpu())
    assert torch.equal(ops.mix_write(x, y, h_res, h_post).cpu(), on_cpu)


def test_mixed_devices_are_refused_in_words() -> None:
    _, x, y, h_res, h_post, _ = inputs(3, 4, 8, torch.float32)
    with pytest.raises(RuntimeError, match="y must be on cuda:0"):
        torch.ops.hyperstreams._mix_write(x, y.cpu(), h_res, h_post, None)
    with pytest.raises(RuntimeError, match="h_post must be on cuda:0"):
        torch.ops.hyperstreams._mix_write(x, y, h_res, h_post.cpu(), None)
