"""The in-tree build backend: PyTorch is found as a folder, or missed in three lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FIND_TORCH = ROOT / "_build" / "find_torch.py"


def make_torch(directory: Path, version: str, *, stable: bool = True) -> Path:
    directory.mkdir(parents=True)
    (directory / "version.py").write_text(f"__version__ = '{version}'\ncuda = None\n")
    (directory / "__init__.py").write_text("raise ImportError('the build must not import torch')\n")
    if stable:
        (directory / "include" / "torch" / "csrc" / "stable").mkdir(parents=True)
    return directory


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of its own environment, without torch and without pip."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def find(python: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HYPERSTREAMS", "PYTHON"))}
    return subprocess.run(
        [str(python), str(FIND_TORCH)], capture_output=True, text=True, env=clean | environment
    )


def test_installed_torch_is_found() -> None:
    done = find(Path(sys.executable))
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "include/torch/csrc/stable/library.h").is_file()


def test_isolated_build_sees_the_outer_environment(bare_python: Path) -> None:
    # pip's isolation takes site-packages off sys.path; the folder is still the interpreter's own.
    isolated = """
import runpy, sys, sysconfig
sys.path.remove(sysconfig.get_path("platlib"))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
    query = "import sysconfig; print(sysconfig.get_path('platlib'))"
    done = subprocess.run([bare_python, "-c", query], capture_output=True, text=True, check=True)
    torch = make_torch(Path(done.stdout.strip()) / "torch", "2.12.1")
    try:
        found = subprocess.run(
            [bare_python, "-c", isolated, FIND_TORCH], capture_output=True, text=True, check=True
        )
    finally:
        shutil.rmtree(torch)
    assert Path(found.stdout.strip()) == torch.resolve()


def test_named_directory_wins(tmp_path: Path, bare_python: Path) -> None:
    torch = make_torch(tmp_path / "a place" / "torch", "2.11.0+cu130")
    done = find(bare_python, HYPERSTREAMS_TORCH_DIR=str(torch))
    assert Path(done.stdout.strip()) == torch.resolve()


@pytest.mark.parametrize(
    ("version", "stable", "reason"),
    [("2.10.2", True, "holds 2.10"), ("2.13.0", False, "no stable headers")],
)
def test_unfit_directory_is_refused(
    tmp_path: Path, bare_python: Path, version: str, stable: bool, reason: str
) -> None:
    torch = make_torch(tmp_path / "torch", version, stable=stable)
    done = find(bare_python, HYPERSTREAMS_TORCH_DIR=str(torch))
    assert done.returncode == 1
    assert reason in done.stderr
    assert "HYPERSTREAMS_TORCH_DIR" in done.stderr


def hook(python: Path, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the hook that pip calls first, with scikit-build-core and no torch on the path."""
    needed = ["scikit_build_core", "packaging", "pathspec", "exceptiongroup", "tomli"]
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name in needed:
        source = Path(sysconfig.get_path("purelib")) / name
        if source.exists():
            (shelf / name).symlink_to(source)
    if not (shelf / "scikit_build_core").exists():
        pytest.fail("scikit-build-core is not installed: make setup")
    path = os.pathsep.join([str(ROOT / "_build"), str(shelf)])
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HYPERSTREAMS", "PYTHON"))}
    return subprocess.run(
        [python, "-c", "import backend; print(*backend.get_requires_for_build_wheel())"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean | {"PYTHONPATH": path} | environment,
    )


def test_missing_torch_stops_the_build_in_three_lines(bare_python: Path, tmp_path: Path) -> None:
    done = hook(bare_python, tmp_path)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3, done.stderr
    assert "PyTorch >= 2.11" in lines[0]
    assert "HYPERSTREAMS_TORCH_DIR" in lines[1]
    assert "HYPERSTREAMS_BUILD_TORCH" in lines[2]


def test_requirement_variable_asks_for_that_torch(bare_python: Path, tmp_path: Path) -> None:
    done = hook(bare_python, tmp_path, HYPERSTREAMS_BUILD_TORCH="torch==2.13.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "torch==2.13.0"


def test_present_torch_adds_no_requirement(bare_python: Path, tmp_path: Path) -> None:
    torch = make_torch(tmp_path / "torch", "2.13.0")
    done = hook(bare_python, tmp_path, HYPERSTREAMS_TORCH_DIR=str(torch))
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stdout
