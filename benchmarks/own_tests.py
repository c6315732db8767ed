"""The tests of what is timed: a number of a wrong result is worth nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import hyperstreams

from .processes import python

ROOT = Path(__file__).resolve().parents[1]

_OPS = (
    "tests/python/ops/test_numbers.py",
    "tests/python/ops/test_derivatives.py",
    "tests/python/ops/test_same_bits.py",
)


@dataclass(frozen=True)
class Selection:
    """Paths for pytest and, to take a part of their tests, a word of ``-k``."""

    paths: tuple[str, ...]
    keyword: str = ""


SELECTIONS = {
    "read": Selection(_OPS, "[read"),
    "mix_write": Selection(_OPS, "[mix_write"),
    "project": Selection(_OPS, "[project"),
    "coefficients": Selection(_OPS, "[coefficients"),
    "boundary": Selection(_OPS, "boundary"),
    "expand": Selection(_OPS, "[expand"),
    "stream_stats": Selection(_OPS, "stream_stats"),
    "site": Selection(("tests/python/nn/test_sites.py", "tests/python/nn/test_formulas.py")),
    "model": Selection(("tests/python/models/test_gpt.py",)),
    "probe": Selection(("tests/python/diagnostics/live/test_probe.py",)),
}
"""By op or part."""


def commands(keys: Iterable[str]) -> list[list[str]]:
    """The pytest arguments that run all selections: one call for each set of paths."""
    keywords: dict[tuple[str, ...], list[str]] = {}
    for key in dict.fromkeys(keys):
        selection = SELECTIONS[key]
        keywords.setdefault(selection.paths, []).append(selection.keyword)
    calls = []
    for paths, words in keywords.items():
        chosen = ["-k", " or ".join(words)] if all(words) else []
        calls.append(["-q", "-x", "-p", "no:cacheprovider", "--durations=0", *paths, *chosen])
    return calls


def red(arguments: list[str], *, root: Path = ROOT, device: str = "cpu") -> str:
    """Run pytest on the package that is timed, the ops' suite on the device.

    The end of what it said when a test failed or none was found, else nothing.
    """
    package = Path(hyperstreams.__file__).parents[1]
    command, environment = python("-m", "pytest", *arguments, first=[package])
    done = subprocess.run(
        command,
        cwd=root,
        env={"OMP_NUM_THREADS": "1", "HYPERSTREAMS_TEST_DEVICE": device} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return ""
    said = (done.stdout + done.stderr).strip().splitlines()[-20:]
    return "\n".join([f"pytest {' '.join(arguments)}: exit status {done.returncode}", *said])
