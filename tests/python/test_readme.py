"""README's promises: its Python runs, its commands exist, its paths are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hyperstreams import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    shown = [line for block in blocks("sh") for line in block.splitlines()]
    shown += re.findall(r"`(hyperstreams [a-z-]+ [^`]*)`", README)
    return [line.split("  #")[0].strip() for line in shown if line.startswith("hyperstreams ")]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_there_is_something_to_test() -> None:
    assert len(blocks("python")) >= 1
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_exist_and_their_options_too(command: str, capsys: pytest.CaptureFixture) -> None:
    name, *rest = shlex.split(command)[1:]
    sub = rest[:1] if name == "crosscoder" else []
    with pytest.raises(SystemExit) as stop:
        cli.main([name, *sub, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in (word for word in rest if word.startswith("--")):
        assert option in text or name in ("train", "compare"), f"{command}: no option {option}"


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./]+)\)", README))
def test_linked_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"
