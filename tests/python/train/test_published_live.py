"""Collections read by the installed ``datasets`` library, from files made here."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hyperstreams.train import prepare_collection
from hyperstreams.train.memmap import read_tokens

pytestmark = [
    pytest.mark.skipif(
        find_spec("datasets") is None,
        reason="datasets is not installed: pip install hyperstreams[data]",
    ),
    pytest.mark.filterwarnings("default"),  # the library's own
]
TEXTS = [f"document {i} says \u00fc\n" for i in range(1000)]


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's caches in a folder of the test's; read when it is first imported."""
    if "datasets" not in sys.modules:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def documents(folder: Path, split: str) -> list[str]:
    data = bytes(read_tokens(folder)[0][split].to(torch.uint8).tolist())
    return data.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    ("name", "seed", "held_out"), [("openwebtext", 2357, 1), ("fineweb_edu", 42, 5)]
)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_split_is_the_library_own(
    name: str, seed: int, held_out: int, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / f"texts.{kind}"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"id": list(range(1000)), "text": TEXTS})
        pyarrow.parquet.write_table(table, file)
    else:
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    meta = prepare_collection(name, tmp_path / "out", tokenizer="byte", files=[str(file)])
    order = np.random.default_rng(seed).permutation(1000)
    assert documents(tmp_path / "out", "val") == [TEXTS[i] for i in order[:held_out]]
    assert documents(tmp_path / "out", "train") == [TEXTS[i] for i in order[held_out:]]
    assert meta["documents"] == {"train": 1000 - held_out, "val": held_out}


def test_lines_and_whole_texts(tmp_path: Path) -> None:
    lines, whole = tmp_path / "v.txt", tmp_path / "t.txt"
    lines.write_text(" = Title = \n \n A paragraph . \n")
    whole.write_text("First\n\nSecond\n")
    files = [f"validation={lines}", f"test={whole}"]
    prepare_collection("wikitext103", tmp_path / "wt", tokenizer="byte", files=files)
    assert documents(tmp_path / "wt", "val") == [" = Title = \n", " A paragraph . \n"]
    prepare_collection("c4", tmp_path / "c4", tokenizer="byte", files=[str(whole)])
    assert documents(tmp_path / "c4", "val") == ["First\n\nSecond\n"]
