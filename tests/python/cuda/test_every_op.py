"""Every op on a GPU: numbers, bit-identical reruns, two streams, graphs, mixed devices.

The cases are those of the CPU's suite (``op_cases.BUILDS``): static and per-token coefficients,
``per_stream``, no ``inv_rms``, every mixer with kernels.
"""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops
from op_cases import BUILDS, Maker
from op_judgement import Case, check_against_float64, run
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

STATIC = pytest.mark.parametrize("static", [False, True], ids=["per_token", "static"])
EVERY_OP = pytest.mark.parametrize("name", BUILDS)


def made(
    name: str,
    *,
    static: bool = False,
    n: int = 4,
    width: int = 40,
    tokens: int = 600,
    dtype: torch.dtype = torch.float32,
    seed: int = 17,
    device: str = "cuda",
) -> tuple[Case, list[Tensor]]:
    """A case on the device, and cotangents of its outputs."""
    make = Maker(seed, dtype, device=device)
    case = BUILDS[name](make, n, width, (tokens,), static)
    outputs = case.outputs(case.tensors, "fused")
    return case, [torch.randn(o.shape, generator=make.generator).to(o) for o in outputs]


def results(case: Case, cotangents: list[Tensor]) -> list[Tensor]:
    outputs, grads = run(case, case.tensors, cotangents, "fused")
    return [*outputs, *grads]


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(a, b), f"result {k}"


@STATIC
@EVERY_OP
def test_cpu_and_gpu_are_as_near_to_float64_for_every_stream_count(name: str, static: bool) -> None:
    for n in range(1, 17):
        dtype = (torch.float32, torch.bfloat16, torch.float16)[n % 3]
        for device in ("cpu", "cuda"):
            make = Maker(n, dtype, device=device)
            case = BUILDS[name](make, n, 33 + 8 * (n % 2), (9,), static)
            check_against_float64(case, make.generator)


@EVERY_OP
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_and_gpu_are_as_near_to_float64_at_a_models_size(name: str, dtype: torch.dtype) -> None:
    for device in ("cpu", "cuda"):
        make = Maker(3, dtype, device=device)
        case = BUILDS[name](make, 4, 768, (1031,), False)
        check_against_float64(case, make.generator, roundings=2)


@STATIC
@EVERY_OP
def test_reruns_have_the_same_bits(name: str, static: bool) -> None:
    case, cotangents = made(name, static=static, tokens=2500, width=768, dtype=torch.bfloat16)
    first = results(case, cotangents)
    for _ in range(20):
        assert_same_bits(results(case, cotangents), first)


@STATIC
@EVERY_OP
def test_two_streams_do_not_disturb_each_other(name: str, static: bool) -> None:
    cases = [made(name, static=static, seed=seed) for seed in (1, 2)]
    expected = [results(*case) for case in cases]
    streams = [torch.cuda.Stream() for _ in cases]
    torch.cuda.synchronize()
    found = []
    for _ in range(10):
        for stream, case in zip(streams, cases, strict=True):
            with torch.cuda.stream(stream):
                found.append(results(*case))
    torch.cuda.synchronize()
    for k, again in enumerate(found):
        assert_same_bits(again, expected[k % 2])


@STATIC
@EVERY_OP
def test_replays_from_a_graph_on_other_values(name: str, static: bool) -> None:
    """Forward and backward, captured once."""
    case, cotangents = made(name, static=static)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results(case, cotangents)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(case, cotangents)
    for tensor in case.tensors:
        if tensor is not None:
            tensor.mul_(0.75)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(captured, results(case, cotangents))


@EVERY_OP
def test_mixed_devices_are_refused_in_words(name: str) -> None:
    case, _ = made(name, tokens=3)
    present = [k for k, tensor in enumerate(case.tensors) if tensor is not None]
    if len(present) == 1:
        pytest.skip("the op has one tensor")
    for k in present:
        tensors = tuple(
            t.cpu() if j == k and t is not None else t for j, t in enumerate(case.tensors)
        )
        with pytest.raises(ValueError, match="device"):
            case.outputs(tensors, "fused")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
@EVERY_OP
def test_the_current_device_does_not_matter(name: str) -> None:
    expected = results(*made(name))
    found = results(*made(name, device="cuda:1"))
    assert torch.cuda.current_device() == 0
    assert_same_bits([t.cpu() for t in found], [t.cpu() for t in expected])


@pytest.mark.parametrize("n", [2, 3, 4, 8, 16])
def test_large_logits(n: int) -> None:
    """Beyond where exp() in float32 is infinite or 0, against the definition in float64."""
    generator = torch.Generator().manual_seed(n)
    count = 2 * n + n * n
    logits = 300 * torch.randn(50, count, generator=generator)
    inputs = (logits, None, torch.ones(3), torch.zeros(count))
    on_gpu = tuple(None if t is None else t.cuda() for t in inputs)
    exact = tuple(None if t is None else t.double() for t in inputs)
    with ops.backend("fused"):
        found = ops.coefficients(*on_gpu, n_streams=n, mixer="sinkhorn")
    with ops.backend("reference"):
        wanted = ops.coefficients(*exact, n_streams=n, mixer="sinkhorn")
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.cpu().double(), b, rtol=0, atol=3e-3)
