"""Kernel times: names, sums, and what emptying the cache cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernels import KernelTime, of_a_call, short_name, times_of

NAME = (
    "void hyperstreams::cuda::(anonymous namespace)::"
    "read_kernel<hyperstreams::cuda::BFloat16, 4, true>(hyperstreams::ReadArgs, long)"
)


def test_names_without_namespaces_and_parameters() -> None:
    assert short_name(NAME) == "read_kernel<BFloat16, 4, true>"
    assert short_name("Memset (Device)") == "Memset"


def test_a_call_leaves_out_what_emptied_the_cache() -> None:
    # Two calls: each empties the cache (5 us of "sum"), then runs "sum" again and "read" twice.
    events = [("sum(long)", 5.0), ("sum(long)", 3.0), ("read(long)", 1.0), ("read(long)", 2.0)]
    times = times_of(events * 2)
    assert of_a_call(times, 2, {"sum": [5.0]}) == [
        KernelTime("sum", 1, 3.0),
        KernelTime("read", 2, 3.0),
    ]
    only_emptied = times_of([("sum(long)", 5.0)] * 2)
    assert of_a_call(only_emptied, 2, {"sum": [5.0]}) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main([]) == 1
    assert "expected a CUDA device, got none" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kernels.json"
    case = "gpu/read/8192x768/bfloat16/forward"
    assert kernels.main(["--only", case, "--calls", "3", "--out", str(out)]) == 0
    assert "read_forward_kernel<BFloat16, 4, true>" in capsys.readouterr().out
    assert case in out.read_text(encoding="utf-8")
