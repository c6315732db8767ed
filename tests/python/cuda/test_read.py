"""read on a GPU: against float64, bit-identical reruns, streams, graphs, errors."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def inputs(
    tokens: int, n: int, width: int, dtype: torch.dtype, *, static: bool, padding: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens + n + width)
    x = torch.randn(tokens, n, width + padding, generator=generator)[..., padding:]
    h_pre = (
        torch.randn(n, generator=generator)
        if static
        else torch.randn(tokens, n, generator=generator)
    )
    grad_u = torch.randn(tokens, width, generator=generator)
    whole = torch.empty(tokens, n, width + padding, device="cuda", dtype=dtype)
    strided = whole[..., padding:]
    strided.copy_(x)
    return strided, h_pre.cuda(), grad_u.cuda().to(dtype)


def forward_backward(
    x: torch.Tensor, h_pre: torch.Tensor, grad_u: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    u = torch.ops.hyperstreams._read(x, h_pre)
    grad_x, grad_h = torch.ops.hyperstreams._read_backward(grad_u, x, h_pre)
    return u, grad_x, grad_h


def check(n: int, width: int, dtype: torch.dtype, *, static: bool) -> None:
    bound = BOUNDS[dtype]
    for tokens, padding in [(0, 0), (1, 0), (19, 0), (19, 1), (3000, 8)]:
        x, h_pre, grad_u = inputs(tokens, n, width, dtype, static=static, padding=padding)
        u, grad_x, grad_h = forward_backward(x, h_pre, grad_u)
        x64, g64 = x.double(), grad_u.double()
        h64 = h_pre.double().expand(tokens, n)
        close = torch.testing.assert_close
        close(u.double(), torch.einsum("ti,tic->tc", h64, x64), rtol=bound, atol=bound)
        close(grad_x.double(), h64[..., None] * g64[:, None], rtol=bound, atol=bound)
        exact = torch.einsum("tc,tic->ti", g64, x64)
        terms = width
        if static:
            exact, terms = exact.sum(0), width * tokens
        close(grad_h.double(), exact, rtol=1e-4, atol=1e-5 * max(1.0, terms**0.5))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_agrees_with_float64(dtype: torch.dtype, static: bool) -> None:
    for n in (1, 2, 3, 4, 5, 8, 16):
        for width in (1, 37, 768, 1025, 4096):
            check(n, width, dtype, static=static)


@pytest.mark.parametrize("static", [False, True])
def test_reruns_have_the_same_bits_on_any_stream(static: bool) -> None:
    arguments = inputs(2500, 4, 768, torch.bfloat16, static=static)
    first = forward_backward(*arguments)
    for _ in range(20):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = forward_backward(*arguments)
        stream.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_replays_from_a_graph() -> None:
    arguments = inputs(65, 4, 256, torch.float32, static=True)
    expected = forward_backward(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forward_backward(*arguments)
    for tensor in captured:
        tensor.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))


def test_tokens_do_not_depend_on_the_batch() -> None:
    x, h_pre, grad_u = inputs(100, 4, 129, torch.float32, static=False)
    u, grad_x, grad_h = forward_backward(x, h_pre, grad_u)
    few = forward_backward(x[7:20], h_pre[7:20], grad_u[7:20])
    assert all(torch.equal(a[7:20], b) for a, b in zip((u, grad_x, grad_h), few, strict=True))


def test_mixed_devices_are_refused_in_words() -> None:
    x, h_pre, _ = inputs(3, 4, 8, torch.float32, static=False)
    with pytest.raises((ValueError, RuntimeError), match="h_pre"):
        ops.read(x, h_pre.cpu())
    with pytest.raises(RuntimeError, match="h_pre must be on cuda:0"):
        torch.ops.hyperstreams._read(x, h_pre.cpu())


def test_double_is_refused_in_words() -> None:
    x = torch.zeros(2, 4, 8, device="cuda", dtype=torch.float64)
    h_pre = torch.zeros(2, 4, device="cuda", dtype=torch.float64)
    with pytest.raises(RuntimeError, match="no CUDA kernel"):
        torch.ops.hyperstreams._read(x, h_pre)


def test_double_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERSTREAMS_REQUIRE_FUSED", raising=False)
    x = torch.ones(2, 4, 8, device="cuda", dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="no torch.float64 kernel"):
        u = ops.read(x, torch.ones(4, device="cuda", dtype=torch.float64))
    assert torch.equal(u, torch.full_like(u, 4))
