"""The table of what CUDA kernels use, and the limits that fail a build."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "_build" / "cuda_resources.py"
LIMITS = ROOT / "csrc" / "kernels" / "cuda" / "stack_limits.txt"

# As ptxas of CUDA 13.0 writes it. `g` calls `f`, whose properties come after both kernels.
REPORT = """\
ptxas info    : 0 bytes gmem, 600 bytes cmem[3]
ptxas info    : Compiling entry function '_Z1hPf' for 'sm_90'
ptxas info    : Function properties for _Z1hPf
    72 bytes stack frame, 68 bytes spill stores, 64 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 72 bytes cumulative stack size, 132 bytes smem
ptxas info    : Compile time = 29.651 ms
ptxas info    : Compiling entry function '_Z1gPfi' for 'sm_90'
ptxas info    : Function properties for _Z1gPfi
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 22 registers, used 0 barriers, 48 bytes cumulative stack size
ptxas info    : Compile time = 7.172 ms
ptxas info    : Compiling entry function '_Z4noneIfLi4EEvv' for 'sm_120'
ptxas info    : Function properties for _Z4noneIfLi4EEvv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
ptxas info    : Function properties for _Z1fPfi
    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


@pytest.fixture(scope="module")
def resources() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_resources", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_resources"] = module  # where its dataclass looks
    spec.loader.exec_module(module)
    return module


def test_parse(resources: ModuleType) -> None:
    spilling, calling, large = resources.parse(REPORT)
    assert spilling == resources.Kernel("_Z1hPf", "sm_90", 32, 132, 72, 68)
    assert calling == resources.Kernel("_Z1gPfi", "sm_90", 22, 0, 48, 0)
    assert large == resources.Kernel("_Z4noneIfLi4EEvv", "sm_120", 255, 0, 0, 0)
    assert resources.parse("") == []


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt (binutils) is not installed")
def test_demangled_names_have_no_parameters(resources: ModuleType) -> None:
    names = [kernel.name for kernel in resources.demangle(resources.parse(REPORT))]
    assert names[:2] == ["h", "g"]
    assert names[2].endswith("none<float, 4>")


def test_complaints(resources: ModuleType) -> None:
    def kernel(name: str, stack: int = 0, spilled: int = 0) -> object:
        return resources.Kernel(name, "sm_90", 64, 0, stack, spilled)

    limits = [("n::*_kernel<n::Map, 0>", 80), ("n::a_kernel<n::Map, 0>", 96)]
    fine = [
        kernel("n::b_kernel<n::Map, 4>"),
        kernel("n::b_kernel<n::Map, 0>", stack=80),
        kernel("n::a_kernel<n::Map, 0>", stack=96),
    ]
    assert resources.complaints(fine, limits) == []
    wrong = [
        kernel("n::b_kernel<n::Map, 4>", stack=8),
        kernel("n::b_kernel<n::Map, 0>", stack=88),
        kernel("n::a_kernel<n::Map, 0>", stack=8, spilled=4),
    ]
    found = resources.complaints([*fine, *wrong], limits)
    assert found == [
        "8 bytes of stack, 0 allowed: n::b_kernel<n::Map, 4>",
        "88 bytes of stack, 80 allowed: n::b_kernel<n::Map, 0>",
        "4 bytes of registers spilled: n::a_kernel<n::Map, 0>",
    ]


def test_limits_are_bytes_and_patterns(resources: ModuleType) -> None:
    assert resources.read_limits("# why\n\n80  n::k<4, *>\n") == [("n::k<4, *>", 80)]
    with pytest.raises(ValueError, match="expected 'BYTES PATTERN', got 'n::k 80'"):
        resources.read_limits("n::k 80")


def test_few_streams_are_register_only(resources: ModuleType) -> None:
    """No line of the project's limits reaches a coefficients kernel for n up to 4."""
    limits = resources.read_limits(LIMITS.read_text(encoding="utf-8"))
    maps = ["Identity", "Free", "Sinkhorn", "Permutation", "Kronecker", "Spectral", "Circulant"]
    for name in maps:
        for n in (1, 2, 3, 4):
            for direction in ("forward", "backward"):
                kernel = (
                    f"hyperstreams::cuda::coefficients_{direction}_kernel"
                    f"<hyperstreams::maps::{name}, {n}>"
                )
                used = resources.Kernel(kernel, "sm_90", 64, 0, 8, 0)
                assert len(resources.complaints([used], limits)) == 1, kernel


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("status", [0, 3])
def test_run(tmp_path: Path, error: bool, status: int) -> None:
    (tmp_path / "report").write_text(REPORT + "op.cu(3): warning: something for people\n")
    limits = tmp_path / "limits.txt"
    limits.write_text("48  *g*\n")
    command = ["sh", "-c", f'cat "{tmp_path}/report" >&2; exit {status}', "op.cu"]
    found = subprocess.run(
        [sys.executable, SCRIPT, "--folder", tmp_path / "table", "--limits", limits]
        + ["--error"] * error
        + ["--", *command],
        capture_output=True,
        text=True,
    )
    assert found.returncode == (status or int(error))
    people, complaint = found.stderr.splitlines()
    assert people == "op.cu(3): warning: something for people"
    kind = "error" if error else "warning"
    assert complaint.startswith(f"op.cu: {kind}: 68 bytes of registers spilled: ")
    rows = (tmp_path / "table" / "op.txt").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
    assert any(
        row.startswith(
            "sm_90    32 registers    132 bytes shared    72 bytes stack    68 bytes spilled  "
        )
        for row in rows
    )
