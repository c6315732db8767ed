"""Every fused op and each of its gradients against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hyperstreams import ops
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import BUILDS, FLOATS, LAYOUTS, Maker, check_against_float64

LEADS = ((), (1,), (5,), (0,), (2, 3), (2, 0, 3), (3, 1, 2), (67,))


@pytest.fixture(autouse=True, scope="module")
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors are full of NaN, so that an element which no kernel writes is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(9).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("build", BUILDS)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    n=st.integers(1, 16),
    width=st.one_of(st.sampled_from([1, 2, 15, 16, 17, 31, 33, 64]), st.integers(1, 70)),
    lead=st.sampled_from(LEADS),
    dtype=st.sampled_from(FLOATS),
    static=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_dtype_and_layout(build, n, width, lead, dtype, static, layout, seed):
    make = Maker(seed, dtype, layout)
    check_against_float64(BUILDS[build](make, n, width, lead, static), make.generator)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    n=st.integers(1, 16),
    width=st.integers(1, 70),
    lead=st.sampled_from(LEADS),
    dtype=st.sampled_from(FLOATS),
    layout=st.sampled_from(LAYOUTS),
    present=st.tuples(*[st.booleans()] * 4),
    static=st.tuples(*[st.booleans()] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_stream_stats(n, width, lead, dtype, layout, present, static, seed):
    """float64 sums, from streams of any kind, beside the reference's on the same values."""
    make = Maker(seed, dtype, layout)
    shapes = ((n,), (n,), (n, n))
    x, y = make(*lead, n, width), make(*lead, width) if present[0] else None
    h = [
        make.coefficient(*(() if fixed else lead), *shape) if there else None
        for there, fixed, shape in zip(present[1:], static, shapes, strict=True)
    ]
    names = ("h_pre", "h_post", "h_res")
    results = []
    for backend in ("fused", "reference"):
        with ops.backend(backend):
            stats = ops.stream_stats(x, y, **dict(zip(names, h, strict=True)))
        assert stats.dtype == torch.float64
        results.append(ops.unpack_stream_stats(stats, n))
    for name, want in results[1].items():
        # acos() near 0 and pi turns the last bits of a cosine into half of the digits.
        loose = 1e-6 if "curvature" in name and "count" not in name else 1e-9
        torch.testing.assert_close(
            results[0][name],
            want,
            rtol=loose,
            atol=loose * max(1.0, float(want.abs().max())),
            msg=name,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", BUILDS)
def test_wide_rows(build, dtype):
    make = Maker(7, dtype)
    check_against_float64(BUILDS[build](make, 3, 16385, (2,), False), make.generator, roundings=8)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("build", BUILDS)
def test_many_tokens(build, static):
    make = Maker(11, torch.float32)
    check_against_float64(BUILDS[build](make, 4, 24, (3, 700), static), make.generator)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("build", BUILDS)
def test_extreme_scales(build, scale):
    make = Maker(13, torch.float32)
    case = BUILDS[build](make, 4, 33, (9,), False)
    if build.startswith("coefficients"):
        scale = min(scale, 20.0)  # exp() of larger logits is infinite in the definition itself
    with torch.no_grad():
        case.tensors[0].mul_(scale)
    check_against_float64(case, make.generator)
