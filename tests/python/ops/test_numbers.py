"""Every fused op and each of its gradients against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hyperstreams import ops
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import BUILDS, Maker
from op_judgement import DEVICE, FLOATS, LAYOUTS, check_against_float64
from torch import Tensor

LEADS = ((), (1,), (5,), (0,), (2, 3), (2, 0, 3), (3, 1, 2), (67,))


@pytest.fixture(autouse=True, scope="module")
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors are full of NaN, so that an element which no kernel writes is seen. (Scratch is
    no tensor; the tests in C++ fill it with NaN.)"""
    # PyTorch has no deterministic CUDA kernel for some operations of the reference.
    torch.use_deterministic_algorithms(True, warn_only=DEVICE != "cpu")
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(9, device=DEVICE).isnan().all()
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


def _ranges(h: Tensor) -> list[Tensor]:
    """Squared deviations, smallest and largest over the first axis, directly."""
    h = h.double()
    return [h.var(dim=0, correction=0) * len(h), h.amin(dim=0), h.amax(dim=0)]


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_stream_stats_ranges_of_planted_coefficients(backend: str) -> None:
    """Of reads far from 0 that vary in their last digits, a signed write, and a static mixer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 3, 5, generator=generator).double()
    digits = torch.randint(-9, 10, (2, 7, 3), generator=generator).double()
    h_pre = 2.0**20 + digits * 2.0**-20  # exact
    h_post = torch.randn(2, 7, 3, generator=generator).double()
    h_res = torch.tensor([[0.1, 0.7, -0.3], [2.0, 0.0, 0.1], [0.3, 0.9, 0.6]]).double()
    with ops.backend(backend):
        stats = ops.stream_stats(x, h_pre=h_pre, h_post=h_post, h_res=h_res)
        none = ops.stream_stats(x[:0], h_pre=h_pre[:0], h_post=h_post[:0], h_res=h_res)
    fields = ops.unpack_stream_stats(stats, 3)
    m2, low, high = _ranges(digits.flatten(0, 1))
    torch.testing.assert_close(fields["h_pre_m2"], m2 * 2.0**-40, rtol=1e-9, atol=0)
    assert torch.equal(fields["h_pre_min"], 2.0**20 + low * 2.0**-20)
    assert torch.equal(fields["h_pre_max"], 2.0**20 + high * 2.0**-20)
    for part, want in zip(("m2", "min", "max"), _ranges(h_post.flatten(0, 1)), strict=True):
        torch.testing.assert_close(fields[f"h_post_{part}"], want, rtol=1e-12, atol=0, msg=part)
    assert not fields["h_res_m2"].any()
    assert torch.equal(fields["h_res_min"], h_res)
    assert torch.equal(fields["h_res_max"], h_res)
    empty = ops.unpack_stream_stats(none, 3)
    assert empty["count"] == 0
    assert not empty["h_pre_m2"].any()
    assert (empty["h_pre_min"] == torch.inf).all()
    assert (empty["h_res_max"] == -torch.inf).all()


def test_merged_stream_stats_are_those_of_all_tokens() -> None:
    """Batches of 1, 11, 0 and 4 tokens whose means differ by far more than their spread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 2, 4, generator=generator).double()
    h_pre, h_post = (torch.randn(16, 2, generator=generator).double() for _ in range(2))
    h_res = torch.randn(16, 2, 2, generator=generator).double()
    h_pre[1:12] += 1e5
    parts = [slice(0, 1), slice(1, 12), slice(12, 12), slice(12, 16)]
    rows = torch.stack(
        [ops.stream_stats(x[p], h_pre=h_pre[p], h_post=h_post[p], h_res=h_res[p]) for p in parts]
    )
    merged = ops.unpack_stream_stats(ops.merge_stream_stats(rows, 2), 2)
    sums = ops.unpack_stream_stats(rows.sum(dim=0), 2)
    assert merged["count"] == 16
    assert torch.equal(merged["gram"], sums["gram"])
    for name, h in (("h_pre", h_pre), ("h_post", h_post), ("h_res", h_res)):
        torch.testing.assert_close(merged[name], h.sum(dim=0), rtol=1e-12, atol=1e-12)
        for part, want in zip(("m2", "min", "max"), _ranges(h), strict=True):
            torch.testing.assert_close(merged[f"{name}_{part}"], want, rtol=1e-12, atol=1e-12)
    # In another order, in two stages, and of one batch alone.
    pairs = torch.stack([ops.merge_stream_stats(rows[k], 2) for k in ([3, 0], [1, 2])])
    staged = ops.unpack_stream_stats(ops.merge_stream_stats(pairs, 2), 2)
    for name, want in merged.items():
        torch.testing.assert_close(staged[name], want, rtol=1e-12, atol=1e-12, msg=name)
    assert torch.equal(ops.merge_stream_stats(rows[1:2], 2), rows[1])
