"""`_info`: pure functions about the build, the processor and the launch plans."""

from __future__ import annotations

import re

import hyperstreams
import pytest
import torch
from hyperstreams import _info, ops


def test_build_info() -> None:
    info = _info.build_info()
    assert info["version"] == hyperstreams.__version__
    assert re.fullmatch(r"([0-9a-f]{12})?", info["git"])
    assert re.fullmatch(r"\w+ [0-9.]+", info["compiler"])
    major, minor = map(int, info["torch_headers"].split("."))
    assert (major, minor) >= (2, 11)
    assert bool(info["cuda_toolkit"]) == bool(info["cuda_archs"])


def test_levels_agree_with_the_ops() -> None:
    levels = _info.cpu_isa_levels()
    assert [level["name"] for level in levels] == ["base", "avx2", "avx512"]
    assert levels[0]["compiled"]
    runnable = [level["name"] for level in levels if level["runs_here"]]
    assert runnable[-1] == torch.ops.hyperstreams._detected_cpu_isa()


def test_variants_hold_every_fused_op_at_every_level() -> None:
    variants = _info.kernel_variants()
    compiled = [level["name"] for level in _info.cpu_isa_levels() if level["compiled"]]
    for stem, devices in ops.backend_status().ops.items():
        found = {v["level"] for v in variants if v["op"] == stem and v["device"] == "cpu"}
        assert found == (set(compiled) if "cpu" in devices else set()), stem


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("tokens", "width"), [(0, 1), (1, 1), (4096, 384), (7, 16385)])
@pytest.mark.parametrize("op", ["read", "mix_write", "expand"])
def test_plan_covers_the_streams(op: str, tokens: int, width: int, dtype: str) -> None:
    plan = _info.plan(op, tokens, 4, width, dtype)
    grid, block = plan["forward"]["grid"], plan["forward"]["block"]
    assert grid[0] * block[0] * plan["vector"] >= width
    assert block[0] * block[1] <= 1024
    if op == "expand":
        sums = plan["grad_scale_and_bias"]
        assert sums["parts"] * sums["tokens_per_part"] >= tokens
    else:
        assert plan["backward"]["grid"][0] * plan["tokens_per_block"] >= tokens


def test_plan_of_coefficients_holds_few_streams_in_registers() -> None:
    few = _info.plan("coefficients", 4096, 4, 64, "float32")
    many = _info.plan("coefficients", 4096, 8, 64, "float32")
    # 32 tokens to a block, with threads for every logit.
    assert few["forward"] == {"grid": (128, 1), "block": (256, 1), "shared_bytes": 0}
    assert few["backward"]["shared_bytes"] == 0
    assert few["partials"] == few["backward"]["grid"][0]
    # The sums per stream of 32 tokens.
    assert many["backward"]["shared_bytes"] == 8 * 32 * 4


@pytest.mark.parametrize("tokens", [0, 1, 4096, 100_001])
def test_plan_of_stream_stats_covers_the_tokens(tokens: int) -> None:
    plan = _info.plan("stream_stats", tokens, 4, 768, "bfloat16")
    assert plan["partials"] == plan["forward"]["grid"][0] <= 1024
    assert plan["partials"] * plan["tokens_per_block"] >= tokens


def test_plan_of_boundary_fuses_few_streams() -> None:
    few = _info.plan("boundary", 4096, 4, 768, "bfloat16")
    many = _info.plan("boundary", 4096, 8, 768, "bfloat16")
    assert few["fused"]
    assert not many["fused"]
    assert few["backward"]["grid"] == (12, few["partials"])  # slabs of 64 channels
    assert few["partials"] * few["tokens_per_part"] >= 4096
    assert 0 < few["backward"]["shared_bytes"] <= 227 << 10  # what a block of sm_90 can have
    assert many["backward_workspace"] > few["backward_workspace"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fold", 1, 4, 8, "float32"), "op: expected one of 'read', .*, got 'fold'"),
        (("read", 1, 4, 8, "int8"), "dtype: expected .* got 'int8'"),
        (("read", -1, 4, 8, "float32"), "tokens >= 0"),
        (("read", 1, 17, 8, "float32"), "n_streams in 1..16"),
        (("read", 1, 4, 0, "float32"), "width >= 1"),
    ],
)
def test_plan_words_bad_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _info.plan(*arguments)


def test_plan_of_project_follows_the_tokens() -> None:
    few, many = (_info.plan("project", tokens, 4, 768, "bfloat16") for tokens in (8, 8192))
    assert few["split"] < many["split"]
    assert few["parts"] == 12
    assert many["partials"] * many["tokens_per_part"] >= 8192
    # The scratch of any alignment is the same.
    unaligned = _info.plan("project", 8192, 4, 768, "bfloat16", alignment=2)
    assert unaligned["workspace"] == many["workspace"]
    assert unaligned["backward_workspace"] == many["backward_workspace"]
