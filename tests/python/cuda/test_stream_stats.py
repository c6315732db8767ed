"""stream_stats on a GPU: the sums of the CPU, bit-identical reruns, streams, graphs, errors."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Inputs = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def inputs(
    lead: tuple[int, ...],
    n: int,
    width: int,
    dtype: torch.dtype,
    *,
    y_dtype: torch.dtype | None = None,
    static: bool = False,
    padding: int = 0,
) -> Inputs:
    """x, y, h_pre, h_post, h_res on the CPU; x inside wider memory when padded."""
    generator = torch.Generator().manual_seed(n + width)
    tokens = () if static else lead
    x = torch.randn(*lead, n, width + padding, generator=generator).to(dtype)[..., padding:]
    y = torch.randn(*lead, width, generator=generator).to(y_dtype or dtype)
    coefficients = [torch.randn(*tokens, *s, generator=generator) for s in ((n,), (n,), (n, n))]
    return x, y, *coefficients


def on_gpu(arguments: Inputs) -> Inputs:
    x, *rest = arguments
    whole = x._base
    moved = x.cuda() if whole is None else whole.cuda()[..., whole.shape[-1] - x.shape[-1] :]
    return moved, *[None if t is None else t.cuda() for t in rest]


def check(arguments: Inputs) -> None:
    on_cpu = torch.ops.hyperstreams._stream_stats(*arguments)
    found = torch.ops.hyperstreams._stream_stats(*on_gpu(arguments)).cpu()
    # Angles near 0 and pi turn the last bits of a cosine into half of the digits.
    loose = 2e-8 * max(1, arguments[0].shape[:-2].numel())
    torch.testing.assert_close(found, on_cpu, rtol=1e-9, atol=loose)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_has_the_sums_of_the_cpu(dtype: torch.dtype) -> None:
    for n in range(1, 17):
        for lead, width, padding in [
            ((2, 9), 37, 0),
            ((3, 5), 64, 8),
            ((0, 4), 8, 0),
            ((7,), 768, 1),
            ((2, 700), 1025, 0),
        ]:
            static = (n + width) % 2 == 0
            check(inputs(lead, n, width, dtype, static=static, padding=padding))


def test_what_is_absent_and_a_branch_of_another_type() -> None:
    x, y, h_pre, h_post, h_res = inputs((3, 11), 4, 96, torch.bfloat16, y_dtype=torch.float32)
    check((x, y, h_pre, h_post, h_res))
    check((x, None, h_pre, h_post, None))
    check((x, y, None, None, None))
    check((x, None, None, None, h_res))


def test_reruns_have_the_same_bits_on_any_stream() -> None:
    arguments = on_gpu(inputs((4, 700), 4, 768, torch.bfloat16))
    first = torch.ops.hyperstreams._stream_stats(*arguments)
    for _ in range(20):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = torch.ops.hyperstreams._stream_stats(*arguments)
        stream.synchronize()
        assert torch.equal(again, first)


def test_replays_from_a_graph() -> None:
    arguments = on_gpu(inputs((3, 65), 4, 256, torch.float32))
    expected = torch.ops.hyperstreams._stream_stats(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.ops.hyperstreams._stream_stats(*arguments)
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)


def test_mixed_devices_are_refused_in_words() -> None:
    x, y, h_pre, h_post, _ = on_gpu(inputs((5,), 4, 8, torch.float32))
    assert y is not None
    assert h_post is not None
    with pytest.raises(ValueError, match="y: expected a tensor on the streams' device cuda:0"):
        ops.stream_stats(x, y.cpu())
    with pytest.raises(RuntimeError, match="h_post must be on cuda:0"):
        torch.ops.hyperstreams._stream_stats(x, y, h_pre, h_post.cpu(), None)
