"""_C_cuda registers its ops even under a CPU build of torch, and leaves the CPU ops alone.

The library is built by ``make cuda``, which needs nvcc and no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]

STEMS = ["read", "mix_write", "expand", "coefficients", "project", "boundary"]
OPS = [f"_{stem}{part}" for stem in STEMS for part in ("", "_backward")] + ["_stream_stats"]

SCRIPT = """
import json, sys
import torch
import hyperstreams._library as library
assert library.CPU_LIBRARY.loaded, library.CPU_LIBRARY.reason

def registered(key):
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return [op for op in {ops!r} if has(f"hyperstreams::{{op}}", key)]

def read():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 4, 33, generator=generator)
    return torch.ops.hyperstreams._read(x, torch.randn(5, 4, generator=generator))

before = {{"cuda": registered("CUDA"), "status": library.CUDA_LIBRARY.reason}}
u = read()
torch.ops.load_library(sys.argv[1])
print(json.dumps({{
    "before": before,
    "cuda": registered("CUDA"),
    "cpu": registered("CPU"),
    "same": torch.equal(u, read()),
    "archs": torch.ops.hyperstreams._cuda_archs(),
}}))
"""


def cuda_library() -> str | None:
    spec = importlib.util.find_spec("hyperstreams._C_cuda")
    return None if spec is None else spec.origin


needs_library = pytest.mark.skipif(
    cuda_library() is None, reason="_C_cuda was not built (make cuda, with nvcc)"
)


@pytest.fixture(scope="module")
def outcome() -> dict:
    library = cuda_library()
    assert library is not None
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ops=OPS), library],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_op_is_tested_on_a_device_too() -> None:
    """make gpu-test runs test_cuda_<op>.cpp through tests/cpp/on_device/<op>.h."""
    bound = {path.stem for path in (ROOT / "csrc" / "torch" / "cuda").glob("*.cpp")}
    moved = {path.stem for path in (ROOT / "tests" / "cpp" / "on_device").glob("*.h")}
    assert moved - {"device_call"} == bound - {"library"}


@needs_library
def test_every_op_has_a_cuda_kernel(outcome: dict) -> None:
    assert outcome["cuda"] == OPS


@needs_library
def test_cpu_ops_are_unaffected(outcome: dict) -> None:
    assert outcome["cpu"] == OPS
    assert outcome["same"]


@needs_library
def test_library_names_its_architectures(outcome: dict) -> None:
    archs = outcome["archs"].split()
    assert archs
    assert all(re.fullmatch(r"\d+[af]?(-real|-virtual)?", arch) for arch in archs)


@needs_library
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is a CUDA build")
def test_package_does_not_load_it_under_a_cpu_torch(outcome: dict) -> None:
    assert outcome["before"] == {"cuda": [], "status": "this torch is a CPU build"}
