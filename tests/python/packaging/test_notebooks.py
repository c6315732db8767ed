"""Every notebook has its script, cell by cell, and no outputs; CI runs them (.ci/check-wheel)."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))


def cells_of_script(path: Path) -> list[tuple[str, str]]:
    """Kind and source of every cell of a percent script."""
    _, *parts = path.read_text(encoding="utf-8").split("\n# %%")
    cells = []
    for part in parts:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().split("\n")]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", body.strip()))
    return cells


def test_each_notebook_has_a_script() -> None:
    assert SCRIPTS
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [path.stem for path in notebooks] == [path.stem for path in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_are_paired(script: Path) -> None:
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    stored = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    assert stored == cells_of_script(script)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert "HYPERSTREAMS_NOTEBOOK_STEPS" in script.read_text(encoding="utf-8")  # the small form
    for kind, source in stored:
        if kind == "code":
            ast.parse(source)
