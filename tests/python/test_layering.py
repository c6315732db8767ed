"""The layers of the package: who may import or include whom.

The tables below are the law; the tests parse every Python file with ``ast`` and every C++ file's
includes, and plant violations in a copy to show that they would be found.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Module prefix -> what it may import beyond the standard library, its own prefix and `_version`.
# The longest prefix that matches a module is its layer. Names without a dot in front are
# third-party packages; a name with one is a module of this package, "." the package itself.
PYTHON = {
    # The package itself is a list of names that are imported on first use.
    "": [
        ".ops",
        ".nn",
        ".mixers",
        ".init",
        ".models",
        ".diagnostics",
        ".train",
        ".interop",
        "._library",
        "torch",
    ],
    "._version": [],
    "._errors": [],
    "._library": ["torch", "._info"],
    ".mixers": ["torch"],
    ".ops": ["torch", ".mixers", "._library"],
    ".ops.settings": [],
    ".ops.reference": ["torch", ".ops.settings"],
    ".ops.reference_stats": ["torch", ".ops.reference", ".ops.settings"],
    ".ops._validate": ["torch", ".mixers", ".ops.settings"],
    ".ops._batching": ["torch"],
    ".ops._backend": ["torch", "._library"],
    ".ops._register": ["torch", ".ops._backend", ".ops._batching"],
    ".ops._ops": [
        "torch",
        ".mixers",
        ".ops._coefficient_settings",
        ".ops._register",
        ".ops._batching",
        ".ops.reference",
        ".ops.reference_stats",
        ".ops.settings",
    ],
    ".nn": ["torch", ".ops", ".mixers", ".init", "._errors"],
    ".init": ["torch", "._errors"],
    ".models": ["torch", ".ops", ".nn", ".init", "._errors"],
    ".diagnostics": [],
    ".diagnostics.metrics": ["torch"],
    ".diagnostics.metrics.composite": ["torch", "._errors"],
    ".diagnostics.live": ["torch", "numpy", ".diagnostics.metrics", ".ops", ".nn", "._errors"],
    ".diagnostics.causal": [
        "torch",
        ".diagnostics.live",
        ".diagnostics.metrics",
        ".nn",
        "._errors",
    ],
    ".diagnostics.causal.replacements": ["torch"],
    ".diagnostics.causal.truncation": ["torch"],
    ".diagnostics.crosscoder": [
        "torch",
        "safetensors",
        ".diagnostics.live",
        ".diagnostics.metrics",
        "._errors",
    ],
    ".train": [
        "torch",
        "numpy",
        "safetensors",
        "tiktoken",
        "tqdm",
        "tomli",
        ".diagnostics",
        ".models",
        ".nn",
        ".",
    ],
    ".interop": ["torch", "safetensors", ".ops", ".mixers", ".nn", ".models", "._errors"],
    ".reproduce": [
        "torch",
        "numpy",
        "matplotlib",
        "tqdm",
        ".train",
        ".models",
        ".diagnostics",
        ".",
    ],
    ".doctor": ["torch", ".ops", ".mixers", "._library", "._info", "."],
    ".catalogue": ["torch", ".diagnostics", ".models", ".nn", ".mixers", ".init", ".ops"],
    ".cli": [
        "torch",
        ".catalogue",
        ".train",
        ".reproduce",
        ".doctor",
        ".models",
        ".nn",
        ".mixers",
        ".init",
        ".diagnostics",
        ".",
    ],
    ".__main__": [".cli"],
}

# Folder -> (our folders it may include, patterns of system headers it may include).
STANDARD = r"[a-z_]+"  # <vector>, <cstdint>, ...
SIMD = r"(imm|x86|arm_|cpu)[a-z0-9_]*\.h"
CUDA = r"(cub/|cuda/|cuda_)[a-z0-9_/]*(\.h|\.cuh)?"
FIBER = r"ucontext\.h|sanitizer/common_interface_defs\.h"  # the emulation of CUDA threads
PAGES = r"sys/mman\.h"  # huge pages behind outputs, which the bindings allocate
STABLE = r"torch/(csrc/stable|csrc/inductor/aoti_torch/c|headeronly)/[A-Za-z0-9_/]+\.h"
CPP = {
    "csrc/include": (["csrc/include"], [STANDARD, SIMD]),
    "csrc/kernels/common": (["csrc/include"], [STANDARD]),
    "csrc/kernels/cpu": (["csrc/kernels/cpu", "csrc/include"], [STANDARD, SIMD]),
    "csrc/kernels/cuda": (["csrc/kernels/cuda", "csrc/include"], [STANDARD, CUDA, FIBER]),
    "csrc/torch": (["csrc/torch", "csrc/include"], [STANDARD, PAGES, STABLE]),
    "csrc/info": (
        ["csrc/info", "csrc/include"],
        [STANDARD, r"pybind11/[a-z_0-9]+\.h", r"build_info\.h"],
    ),
    "tests/cpp": (
        ["tests/cpp", "csrc/include", "csrc/kernels"],
        [STANDARD, SIMD, CUDA, r"gtest/gtest\.h"],
    ),
    "benchmarks/cpp": (
        ["benchmarks/cpp", "csrc/include"],
        [STANDARD, r"benchmark/benchmark\.h"],
    ),
}
INCLUDE_ROOTS = ["csrc/include", "csrc", "tests/cpp", ""]


def modules(root: Path) -> dict[str, Path]:
    """Map every module of the package (``""``, ``".ops"``, ``".ops.reference"``) to its file."""
    package = root / "python" / "hyperstreams"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found["".join(f".{part}" for part in parts)] = path
    return found


def layer_of(name: str) -> str:
    """Return the longest prefix that ``PYTHON`` knows; ``.cli_eval`` belongs to ``.cli``."""
    name = re.sub(r"^\.cli_", ".cli.", name)
    while name not in PYTHON:
        name, _, _ = name.rpartition(".")
    return name


def within(name: str, prefix: str) -> bool:
    return name == prefix or (prefix != "" and name.startswith(prefix + "."))


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Yield (line, target) of every import; targets as in the keys of ``PYTHON``."""

    def own(parts: str, names: list[str]) -> Iterator[str]:
        for item in names:
            yield f"{parts}.{item}" if f"{parts}.{item}" in known else parts

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                target = f".{rest}" if rest else ""
                yield node.lineno, target if first == "hyperstreams" else first
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                base = name if path.name == "__init__.py" else name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    base = base.rpartition(".")[0]
                stem = f"{base}.{node.module}" if node.module else base
                yield from ((node.lineno, target) for target in own(stem, names))
            elif (node.module or "").partition(".")[0] == "hyperstreams":
                stem = (node.module or "")[len("hyperstreams") :]
                yield from ((node.lineno, target) for target in own(stem, names))
            else:
                yield node.lineno, (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else ""
            called = function.id if isinstance(function, ast.Name) else called
            if called in ("import_module", "__import__"):
                first, _, rest = str(node.args[0].value).partition(".")
                target = f".{rest}" if rest else ""
                yield node.lineno, target if first in ("", "hyperstreams") else first


def python_violations(root: Path, only: Path | None = None) -> list[str]:
    """Return one line for each import that the table does not allow (in ``only``, if given)."""
    known = modules(root)
    wrong = []
    for name, path in known.items():
        if only is not None and path != only:
            continue
        layer = layer_of(name)
        allowed = PYTHON[layer]
        for line, target in imported(name, path, known):
            if target in sys.stdlib_module_names or within(target, "._version"):
                continue
            if target.startswith(".") or target == "":
                if layer and (within(target, layer) or layer_of(target) == layer):
                    continue
                if any(within(target or ".", prefix) for prefix in allowed if prefix[0] == "."):
                    continue
            elif target in allowed:
                continue
            shown = f"hyperstreams{target}" if target.startswith(".") or not target else target
            wrong.append(
                f"{path.relative_to(root)}:{line}: {name or 'hyperstreams'} imports {shown}"
            )
    return wrong


def resolve_include(root: Path, path: Path, target: str) -> str | None:
    """Return the path, from the root, of an include of ours; None when it is not ours."""
    for base in [path.parent, *(root / folder for folder in INCLUDE_ROOTS)]:
        candidate = (base / target).resolve()
        if candidate.is_file() and candidate.is_relative_to(root):
            return candidate.relative_to(root).as_posix()
    return None


def cpp_violations(root: Path) -> list[str]:
    """Return one line for each include that the table does not allow."""
    wrong = []
    for folder, (own, system) in CPP.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cpp", ".cu", ".cuh", ".inc"):
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
                if not match:
                    continue
                target = resolve_include(root, path, match[1])
                if target is None:
                    allowed = any(re.fullmatch(pattern, match[1]) for pattern in system)
                else:
                    allowed = any(target.startswith(prefix + "/") for prefix in own)
                if not allowed:
                    wrong.append(f"{path.relative_to(root)}:{number}: includes {match[1]}")
    return wrong


def test_python_layers() -> None:
    assert python_violations(ROOT) == []


def test_cpp_layers() -> None:
    assert cpp_violations(ROOT) == []


def test_tables_name_what_exists() -> None:
    missing = [folder for folder in CPP if not (ROOT / folder).is_dir()]
    known = modules(ROOT)
    missing += [name for name in PYTHON if not any(within(module, name) for module in known)]
    assert missing == []


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("ops/reference.py", "from ..mixers import get_mixer", "hyperstreams.mixers"),
        ("ops/reference.py", "from . import functional", "hyperstreams.ops.functional"),
        ("ops/functional.py", "from hyperstreams import nn", "hyperstreams.nn"),
        ("mixers/base.py", "from ..ops import settings", "hyperstreams.ops.settings"),
        ("mixers/base.py", "import numpy as np", "numpy"),
        ("nn/__init__.py", "from ..models.gpt import GPT", "hyperstreams.models.gpt"),
        ("models/gpt.py", "def f():\n    import matplotlib.pyplot", "matplotlib"),
        ("train/__init__.py", "from ..reproduce import demo", "hyperstreams.reproduce"),
        (
            "train/__init__.py",
            "import importlib\nimportlib.import_module('hyperstreams.cli')",
            "hyperstreams.cli",
        ),
        ("nn/__init__.py", "import tests.python", "tests"),
        ("ops/settings.py", "import torch", "torch"),
        ("__init__.py", "from .reproduce import demo", "hyperstreams.reproduce"),
    ],
)
def test_planted_import_is_found(tmp_path: Path, path: str, line: str, expected: str) -> None:
    package = shutil.copytree(
        ROOT / "python", tmp_path / "python", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    target = package / "hyperstreams" / path
    target.parent.mkdir(exist_ok=True)
    target.touch()
    before = set(python_violations(tmp_path, target))
    target.write_text(target.read_text(encoding="utf-8") + "\n" + line + "\n", encoding="utf-8")
    after = [found for found in python_violations(tmp_path, target) if found not in before]
    assert len(after) == 1
    assert path in after[0]
    assert f"imports {expected}" in after[0]


@pytest.mark.parametrize(
    ("folder", "include"),
    [
        ("csrc/include/hyperstreams", "<torch/csrc/stable/tensor.h>"),
        ("csrc/include/hyperstreams", "<cuda_runtime.h>"),
        ("csrc/kernels/cpu", "<torch/headeronly/util/BFloat16.h>"),
        ("csrc/kernels/cuda", '"../cpu/planted_cpu.h"'),
        ("csrc/torch", "<ATen/ATen.h>"),
        ("csrc/torch", '"../kernels/cpu/planted_cpu.h"'),
        ("csrc/info", "<torch/csrc/stable/library.h>"),
        ("tests/cpp", "<torch/torch.h>"),
        ("benchmarks/cpp", '"../kernels/cpu/planted_cpu.h"'),
    ],
)
def test_planted_include_is_found(tmp_path: Path, folder: str, include: str) -> None:
    (tmp_path / "csrc/kernels/cpu").mkdir(parents=True)
    (tmp_path / "csrc/kernels/cpu/planted_cpu.h").write_text("#pragma once\n", encoding="utf-8")
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    source = tmp_path / folder / "planted.cpp"
    source.write_text(f"#include <vector>\n#  include {include}\n", encoding="utf-8")
    assert len(cpp_violations(tmp_path)) == 1
