"""make gpu-test, as far as it goes without a GPU: it says what is missing, and fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]


def gpu_test(*steps: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".ci" / "gpu-test", *steps],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable},
    )


def test_an_unknown_step_is_refused() -> None:
    done = gpu_test("native", "everything")
    assert done.returncode == 2
    assert "STEP: expected a name from the list at the top of this file, got" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_nothing_passes() -> None:
    done = gpu_test("cuda")
    assert done.returncode == 1
    assert "sees no PyTorch with a CUDA device" in done.stderr
    assert done.stdout == ""
