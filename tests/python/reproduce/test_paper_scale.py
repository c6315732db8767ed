"""At paper scale nothing is trained: the plan names every command, each of which exists."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hyperstreams.cli import main
from hyperstreams.train import COLLECTIONS, build_config


def test_plan_prepares_trains_and_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["figure", "fig2", "--scale", "paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("hyperstreams ")]
    kinds = [words[1] for words in commands]
    assert kinds[0] == "prepare"
    assert set(kinds[1:-2]) == {"train"}
    assert kinds[-2:] == ["prepare", "eval"]
    for words in commands:
        if words[1] == "prepare":
            assert words[words.index("--dataset") + 1] in COLLECTIONS
        if words[1] == "train":
            pairs = zip(words[2::2], words[3::2], strict=True)
            config = build_config({key.removeprefix("--"): value for key, value in pairs})
            assert config.dataset == commands[0][4]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data" / "openwebtext").mkdir(parents=True)
    assert main(["figure", "fig2", "--scale", "paper"]) == 0
    assert "--dataset openwebtext" not in capsys.readouterr().out
