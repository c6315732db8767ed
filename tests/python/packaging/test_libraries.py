"""What the built libraries contain, export and need, read from the files themselves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
SYSTEM = {"libc", "libm", "libdl", "libpthread", "librt", "libgcc_s", "libstdc++", "ld-linux"}
TORCH = {"libtorch", "libtorch_cpu"}
MAY_NEED = {"_C": SYSTEM | TORCH, "_C_cuda": SYSTEM | TORCH, "_info": SYSTEM}


def library(name: str) -> Path:
    spec = find_spec(f"hyperstreams.{name}")
    if spec is None or spec.origin is None:
        if name == "_C_cuda":
            pytest.skip("_C_cuda is not built here (make cuda, with nvcc)")
        pytest.fail(f"{name} is not built: make build")
    return Path(spec.origin)


def run(*command: str | Path) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} (binutils) is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(params=sorted(MAY_NEED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_dynamic_section(name: str) -> None:
    dynamic = run("readelf", "-d", library(name))
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    needed = re.findall(r"\(NEEDED\).*\[(.+?)\.so", dynamic)
    stems = {re.sub(r"^(ld-linux).*", r"\1", entry) for entry in needed}
    assert stems <= MAY_NEED[name]
    if name != "_info":
        # Without these two the loader does not find PyTorch's C shims.
        assert stems >= TORCH


def test_exports(name: str) -> None:
    symbols = run("nm", "-D", "--defined-only", library(name)).split("\n")
    exported = {line.split()[-1] for line in symbols if line}
    assert exported == ({"PyInit__info"} if name == "_info" else set())


def test_no_paths_of_the_building_machine(name: str) -> None:
    content = library(name).read_bytes()
    for path in {str(ROOT), str(Path.home()), str(Path(torch.__file__).parent), sys.prefix}:
        assert path.encode() + b"/" not in content


@pytest.mark.parametrize("name", ["_C", "_C_cuda"], indirect=True)
def test_stable_abi(name: str) -> None:
    audit = subprocess.run(
        [Path(sys.executable).with_name("torch-abi-audit"), "--json", library(name)],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(audit.stdout)
    (entry,) = report["bundled_libs"] + report["extensions"]
    assert entry["error"] is None
    found = entry["torch"]
    assert found["uses_torch"]
    assert found["stable"]
    assert found["unstable_symbols"] == []
    assert found["unknown_shim_symbols"] == []
    assert tuple(map(int, found["min_torch_version"].split("."))) <= (2, 11, 0)
