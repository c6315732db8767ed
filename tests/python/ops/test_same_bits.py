"""The promises of bit equality: reruns, threads, batches, instruction sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hyperstreams import ops
from hyperstreams.mixers import get_mixer
from hyperstreams.ops._coefficient_settings import coefficient_settings
from op_cases import BUILDS, Maker
from op_judgement import Case, cpu_only, run

# name: position of tensors with token axes (the others are parameters, summed over tokens).
PER_TOKEN = {
    "read": (0, 1),
    "mix_write": (0, 1, 2, 3),
    "mix_write_identity": (0, 1, 2),
    "mix_write_mixed": (0, 1, 2),
    "project": (0,),
    "project_plain": (0,),
    "expand": (0,),
    "expand_plain": (0,),
    "reduce": (0,),
    **{name: (0, 1) for name in BUILDS if name.startswith("coefficients")},
    **{name: (0, 1, 2, 3) for name in BUILDS if name.startswith("boundary")},
    "boundary_first_site": (0,),
    "boundary_first_site_per_stream": (0,),
    "boundary_given_weights": (0, 1, 2, 3, 7),
}


@pytest.fixture
def isa() -> Iterator[object]:
    """Sets the instruction set of the CPU kernels; the machine's own afterwards."""
    detected = torch.ops.hyperstreams._cpu_isa()
    yield torch.ops.hyperstreams._set_cpu_isa
    torch.ops.hyperstreams._set_cpu_isa(detected)


def bits(case: Case, cotangents: list[torch.Tensor]) -> list[torch.Tensor]:
    outputs, grads = run(case, case.tensors, cotangents, "fused")
    return [*outputs, *grads]


def made(
    name: str, dtype: torch.dtype = torch.float32, tokens: int = 600, static: bool = False
) -> tuple[Case, list[torch.Tensor]]:
    make = Maker(17, dtype)
    case = BUILDS[name](make, 4, 40, (tokens,), static)
    outputs = case.outputs(case.tensors, "fused")
    return case, [torch.randn(o.shape, generator=make.generator).to(o) for o in outputs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", BUILDS)
def test_reruns_and_threads(name: str, static: bool, dtype: torch.dtype) -> None:
    case, cotangents = made(name, dtype, static=static)
    first = bits(case, cotangents)
    torch.set_num_threads(2)
    try:
        reruns = [bits(case, cotangents) for _ in range(3)]
    finally:
        torch.set_num_threads(1)
    for rerun in [bits(case, cotangents), *reruns]:
        for got, want in zip(rerun, first, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("name", BUILDS)
def test_a_token_does_not_see_its_batch(name: str) -> None:
    case, cotangents = made(name)
    outputs, grads = run(case, case.tensors, cotangents, "fused")
    for part in (slice(0, 1), slice(100, 117), slice(33, 600)):
        tensors = tuple(
            t[part].clone() if k in PER_TOKEN[name] else t for k, t in enumerate(case.tensors)
        )
        got_outputs, got_grads = run(case, tensors, [c[part] for c in cotangents], "fused")
        for got, want in zip(got_outputs, outputs, strict=True):
            assert torch.equal(got, want[part])
        for k in PER_TOKEN[name]:
            assert torch.equal(got_grads[k], grads[k][part])


@pytest.mark.parametrize("name", BUILDS)
def test_layout_does_not_matter(name: str) -> None:
    case, cotangents = made(name, tokens=60)
    want = bits(case, cotangents)
    for layout in ("offset", "sliced", "permuted", "strided_channels"):
        make = Maker(17, torch.float32, layout)
        other = BUILDS[name](make, 4, 40, (60,), False)
        for got, expected in zip(bits(other, cotangents), want, strict=True):
            assert torch.equal(got, expected)


@cpu_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", BUILDS)
def test_instruction_sets(name: str, dtype: torch.dtype, isa) -> None:
    case, cotangents = made(name, dtype, tokens=37)
    detected = torch.ops.hyperstreams._detected_cpu_isa()
    levels = ["base", "avx2", "avx512"]
    found = {}
    for level in levels[: levels.index(detected) + 1]:
        isa(level)
        assert torch.ops.hyperstreams._cpu_isa() == level
        found[level] = bits(case, cotangents)
    if dtype == torch.float32 and "avx512" in found:
        for got, want in zip(found["avx2"], found["avx512"], strict=True):
            assert torch.equal(got, want)
    for level, results in found.items():
        for got, want in zip(results, found["base"], strict=True):
            rounding = 2 * torch.finfo(got.dtype).eps if got.dtype != torch.float64 else 1e-13
            bound = {torch.float32: 2e-5}.get(got.dtype, rounding)
            scale = want.double().norm() + 1e-30
            assert (got.double() - want.double()).norm() <= bound * scale, level


@cpu_only
@pytest.mark.parametrize("tokens", [1, 9, 65, 300])
@pytest.mark.parametrize("n", [1, 3, 4, 7, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_boundary_is_the_chain_of_ops_bit_for_bit(
    dtype: torch.dtype, n: int, tokens: int, isa
) -> None:
    """X' of boundary is mix_write's, and logits and u come from it as stored."""
    make = Maker(23, dtype)
    x, y = make(tokens, n, 37), make(tokens, 37)
    h_res, h_post = make.coefficient(tokens, n, n), make.coefficient(tokens, n)
    count = 2 * n + n * n
    phi, norm = make.coefficient(count, n * 37), make.coefficient(n * 37)
    alpha, bias = make.coefficient(3), make.coefficient(count)
    detected = torch.ops.hyperstreams._detected_cpu_isa()
    for level in ("base", "avx2", "avx512")[: 1 + ("base", "avx2", "avx512").index(detected)]:
        isa(level)
        got = ops.boundary(x, y, h_res, h_post, phi, norm, alpha, bias, n_streams=n)
        state = ops.mix_write(x, y, h_res, h_post)
        logits, inv_rms = ops.project(state, phi, norm)
        want = ops.coefficients(logits, inv_rms, alpha, bias, n_streams=n)
        chain = (state, ops.read(state, want[0]), *want)
        for fused, single in zip(got, chain, strict=True):
            assert torch.equal(fused, single), level


@cpu_only
@pytest.mark.parametrize("per_stream", [False, True])
def test_boundary_of_coefficients_per_stream_and_static(per_stream: bool) -> None:
    make = Maker(5, torch.float32)
    x, y, h_res, h_post = make(50, 4, 24), make(50, 24), make.coefficient(4, 4), make.coefficient(4)
    alpha, bias = make.coefficient(3), make.coefficient(24)
    phi = make.coefficient(6, 24) if per_stream else None
    got = ops.boundary(
        x, y, h_res, h_post, phi, None, alpha, bias, n_streams=4, mixer="free",
        per_stream=per_stream,
    )  # fmt: skip
    state = ops.mix_write(x, y, h_res, h_post)
    if per_stream:
        logits, inv_rms = ops.project(state.unsqueeze(-2), phi)
    else:
        logits, inv_rms = torch.zeros(24), None
    want = ops.coefficients(
        logits, inv_rms, alpha, bias, n_streams=4, mixer="free", per_stream=per_stream
    )
    chain = (state, ops.read(state, want[0]), *want)
    assert all(torch.equal(a, b) for a, b in zip(got, chain, strict=True))


def test_stream_stats_rerun_and_threads() -> None:
    make = Maker(29, torch.float32)
    x, y, h_pre = make(4, 200, 3, 17), make(4, 200, 17), make.coefficient(4, 200, 3)
    first = ops.stream_stats(x, y, h_pre=h_pre)
    torch.set_num_threads(2)
    try:
        assert torch.equal(ops.stream_stats(x, y, h_pre=h_pre), first)
    finally:
        torch.set_num_threads(1)


@cpu_only
def test_strided_statistics_in_the_raw_backward_of_boundary() -> None:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, y, h_res, h_post = randn(2, 3, 4, 8), randn(2, 3, 8), randn(2, 3, 4, 4), randn(2, 3, 4)
    phi, alpha, bias = randn(24, 32), randn(3), randn(24)
    raw = torch.ops.hyperstreams
    given = (x, y, h_res, h_post, None, phi, None, alpha, bias, None)
    last = (1e-6, 0, *coefficient_settings(get_mixer("free"), 4)[1:])
    state, u, h_pre, next_post, next_res, logits, inv_rms = raw._boundary(*given, *last)
    grads = [randn(*value.shape) for value in (state, u, h_pre, next_post, next_res)]
    strided = inv_rms.t().contiguous().t()
    assert strided.stride() != inv_rms.stride()
    want, got = (
        raw._boundary_backward(*grads, *given, logits, statistics, h_pre, *last)
        for statistics in (inv_rms, strided)
    )
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
