"""``hyperstreams test-mixer`` on a user's own module."""

from __future__ import annotations

from pathlib import Path

import pytest
from hyperstreams.cli import main

Capture = pytest.CaptureFixture[str]

MODULE = """
from dataclasses import dataclass
import torch
from hyperstreams.mixers import Mixer

@dataclass(frozen=True)
class Averaging(Mixer):
    name = "averaging"
    paper = "-"
    invariants = frozenset({"doubly_stochastic", "symmetric", "commuting"})
    weight: float = 1.0

    def logit_count(self, n):
        return 1

    def initial_logits(self, n):
        return torch.tensor([-8.0])

    def map(self, logits, n):
        g = torch.sigmoid(logits).unsqueeze(-1)
        return (1 - g) * torch.eye(n, dtype=g.dtype, device=g.device) + self.weight * g / n

class Family:
    wrong = Averaging(weight=1.01)

@dataclass(frozen=True)
class NeedsSettings(Averaging):
    size: int = None
    def __init__(self, size):
        pass

not_a_mixer = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_mixers.py").write_text(MODULE)
    (tmp_path / "broken_import.py").write_text("import a_package_that_is_not_there")
    monkeypatch.chdir(tmp_path)


def test_a_right_mixer(capsys: Capture) -> None:
    assert main(["test-mixer", "my_own_mixers:Averaging", "--n", "2,3"]) == 0
    text = capsys.readouterr().out
    assert "Averaging(weight=1.0)\ninvariants: commuting, doubly_stochastic, symmetric\n" in text
    assert "n = 3: 1 logits; starts with 0.99978 on the diagonal, 1.12e-04 to 1.12e-04 off" in text
    assert text.count("  ok    invariants\n") == 2
    assert text.endswith("all 16 checks pass\n")


def test_a_wrong_mixer(capsys: Capture) -> None:
    assert main(["test-mixer", "my_own_mixers:Family.wrong", "--n", "3"]) == 1
    text = capsys.readouterr().out
    assert "Averaging(weight=1.01)" in text
    assert "  FAIL  invariants\n        'doubly_stochastic' (nonnegative with unit row" in text
    assert text.endswith("9 checks, 1 failed\n")


def test_a_registered_mixer_and_refused_sizes(capsys: Capture) -> None:
    assert main(["test-mixer", "permutation", "--n=2,6"]) == 0
    assert (
        "  ok    refuses: mixer 'permutation': n_streams must be in 1..5" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["my_own_mixer:Averaging"], "No module named 'my_own_mixer'; looked in "),
        (["broken_import:Mixer"], "No module named 'a_package_that_is_not_there'"),
        (["my_own_mixers:Averagin"], "'my_own_mixers' has no 'Averagin'"),
        (
            ["my_own_mixers:not_a_mixer"],
            "expected a subclass or an instance of hyperstreams.mixers",
        ),
        (["my_own_mixers:NeedsSettings"], "a class is tested with its default settings"),
        (["sinkhor"], "got 'sinkhor' (did you mean 'sinkhorn'?). Your own: my_module:MyMixer"),
        (["sinkhorn", "--n", "two"], "--n: expected numbers of streams like 2,3,4, got 'two'"),
        (["sinkhorn", "--n", "0"], "--n: expected numbers of streams like 2,3,4, got '0'"),
    ],
)
def test_errors(words: list[str], message: str, capsys: Capture) -> None:
    assert main(["test-mixer", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hyperstreams test-mixer: ")
    assert message in error
