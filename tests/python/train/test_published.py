"""Published collections, with a stand-in for the ``datasets`` library: nothing is downloaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hyperstreams.cli import main
from hyperstreams.train import (
    COLLECTIONS,
    ByteTokenizer,
    MissingExtraError,
    RunError,
    build_config,
    open_data,
    prepare_collection,
    run_training,
)
from hyperstreams.train.memmap import TokenWriter, read_tokens


class Rows:
    """As much of the library's data set as is used, over a list of texts."""

    def __init__(self, texts: list[str], calls: list[dict[str, Any]]) -> None:
        self.texts, self.calls = texts, calls

    def __len__(self) -> int:
        return len(self.texts)

    def select_columns(self, names: list[str]) -> Rows:
        assert names == ["text"]
        return self

    def iter(self, batch_size: int) -> Iterator[dict[str, list[str]]]:
        for first in range(0, len(self.texts), batch_size):
            yield {"text": self.texts[first : first + batch_size]}

    def train_test_split(self, **arguments: Any) -> dict[str, Rows]:
        self.calls.append(arguments)
        held_out = max(1, round(len(self.texts) * arguments["test_size"]))
        return {
            "train": Rows(self.texts[held_out:], self.calls),
            "test": Rows(self.texts[:held_out], self.calls),
        }


class Library(SimpleNamespace):
    """``datasets``: hands out what it was given by split, and keeps what it was asked."""

    def __init__(self, splits: dict[str, list[str]]) -> None:
        super().__init__(__version__="0.0-stand-in", splits=splits, calls=[])

    def load_dataset(self, **arguments: Any) -> Rows:
        self.calls.append(arguments)
        if arguments["path"] == "json":
            lines = Path(arguments["data_files"][arguments["split"]][0]).read_text().splitlines()
            return Rows([json.loads(line)["text"] for line in lines], self.calls)
        return Rows(self.splits[arguments["split"]], self.calls)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library({"train": [f"document {i} says ü\n" for i in range(400)]})
    monkeypatch.setitem(sys.modules, "datasets", made)
    return made


def ids_of(folder: Path, split: str) -> list[int]:
    tokens: list[int] = read_tokens(folder)[0][split].to(torch.int64).tolist()
    return tokens


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"openwebtext needs .*hyperstreams\[data\]"):
        prepare_collection("openwebtext", tmp_path / "owt", tokenizer="byte")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "path", "config", "fraction", "seed"),
    [
        ("openwebtext", "Skylion007/openwebtext", None, 0.0005, 2357),
        ("fineweb_edu", "HuggingFaceFW/fineweb-edu", "sample-10BT", 0.005, 42),
    ],
)
def test_published_splits_are_asked_for(
    name: str, path: str, config: str | None, fraction: float, seed: int,
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    small = dataclasses.replace(COLLECTIONS[name], documents=400)
    monkeypatch.setitem(COLLECTIONS, name, small)
    meta = prepare_collection(name, tmp_path / "out", tokenizer="byte", workers=3)
    load, split = library.calls
    assert load == {
        "path": path, "name": config, "revision": None, "streaming": False, "split": "train",
        "num_proc": 3,
    }  # fmt: skip
    assert split == {"test_size": fraction, "seed": seed, "shuffle": True}
    held_out = max(1, round(400 * fraction))
    assert meta["documents"] == {"train": 400 - held_out, "val": held_out}
    texts = library.splits["train"]
    expected = {"val": texts[:held_out], "train": texts[held_out:]}
    for part, documents in expected.items():
        joined = b"".join(text.encode() + b"\0" for text in documents)
        assert bytes(ids_of(tmp_path / "out", part)) == joined
        assert meta["bytes"][part] == len(joined) - len(documents)
        assert meta["tokens"][part] == len(joined)
    assert (meta["source"], meta["separator"], meta["dtype"]) == (name, 0, "uint16")
    assert meta["collection"]["seed"] == seed
    assert meta["libraries"] == {"datasets": "0.0-stand-in"}
    data = open_data(str(tmp_path / "out"), block_size=16)
    assert data.meta == meta
    windows = data.train_batch(3, 2, seed=0)[0]
    assert torch.equal(windows, open_data(str(tmp_path / "out"), block_size=16).train_batch(
        3, 2, seed=0)[0])  # fmt: skip


def test_another_number_of_documents_is_refused(library: Library, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"drawn from 8,013,769 documents.*now has 400"):
        prepare_collection("openwebtext", tmp_path / "owt", tokenizer="byte")
    file = tmp_path / "shard.jsonl"
    file.write_text("".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(30)))
    meta = prepare_collection("openwebtext", tmp_path / "own", tokenizer="byte", files=[str(file)])
    assert meta["documents"] == {"train": 29, "val": 1}
    assert meta["files"] == ["shard.jsonl"]
    assert library.calls[1]["data_files"] == {"train": [str(file)]}


def test_evaluation_collections_have_no_training_split(library: Library, tmp_path: Path) -> None:
    library.splits = {"validation": ["", " = Title = \n", " \n", " Text . \n"], "test": ["a", "b"]}
    meta = prepare_collection("wikitext103", tmp_path / "wt", tokenizer="byte")
    assert bytes(ids_of(tmp_path / "wt", "val")) == b" = Title = \n\0 Text . \n\0"
    assert bytes(ids_of(tmp_path / "wt", "test")) == b"a\0b\0"
    assert meta["documents"] == {"val": 2, "test": 2}
    assert [call["name"] for call in library.calls] == ["wikitext-103-v1"] * 2
    data = open_data(str(tmp_path / "wt"), block_size=3, val_name="test")
    assert data.val.tolist() == [97, 0, 98, 0]
    assert data.val_bytes_per_token == 0.5
    with pytest.raises(RunError, match="no train split"):
        data.train_batch(0, 1, seed=0)
    folder, out = tmp_path / "wt", tmp_path / "run"
    with pytest.raises(RunError, match="no train split"):
        run_training(build_config({"dataset": str(folder), "block_size": 3, "out_dir": str(out)}))
    assert not out.exists()
    with pytest.raises(RunError, match="expected a split of val, test, got 'train'"):
        open_data(str(tmp_path / "wt"), block_size=3, val_name="train")
    with pytest.raises(RunError, match="test split has 4 tokens, expected more than block_size"):
        open_data(str(tmp_path / "wt"), block_size=4, val_name="test")


def test_c4_is_streamed(library: Library, tmp_path: Path) -> None:
    library.splits = {"validation": ["one", "two"]}
    prepare_collection("c4", tmp_path / "c4", tokenizer="byte", workers=4)
    assert library.calls[0] == {
        "path": "allenai/c4", "name": "en", "revision": None, "streaming": True,
        "split": "validation",
    }  # fmt: skip
    assert set(read_tokens(tmp_path / "c4")[0]) == {"val"}


def test_tiny_shakespeare_is_one_text(library: Library, tmp_path: Path) -> None:
    library.splits = {"train": ["First Citizen:\n" * 9], "validation": ["Speak, "], "test": ["z!"]}
    meta = prepare_collection("tiny_shakespeare", tmp_path / "ts")
    data = open_data(str(tmp_path / "ts"), block_size=4)
    assert data.tokenizer.decode(data.val.to(torch.int64)) == "Speak, z!"
    assert meta["tokenizer"]["characters"] == "".join(sorted(set("First Citizen:\nSpeak, z!")))
    assert meta["separator"] is None


class Wide(ByteTokenizer):
    """Byte ids shifted beyond 16 bits."""

    vocab_size = 70_000
    document_end = 69_999

    def encode(self, text: str) -> torch.Tensor:
        return super().encode(text) + 69_000


def test_ids_above_16_bits_and_outside_the_vocabulary(library: Library, tmp_path: Path) -> None:
    library.splits = {"validation": ["ab"], "test": ["c"]}
    meta = prepare_collection("wikitext103", tmp_path / "wide", tokenizer=Wide())
    assert meta["dtype"] == "uint32"
    assert ids_of(tmp_path / "wide", "val") == [69_097, 69_098, 69_999]
    narrow = Wide()
    narrow.vocab_size = 65_536
    with pytest.raises(RunError, match=r"val split: expected ids in 0..65535, got 69999"):
        prepare_collection("wikitext103", tmp_path / "narrow", tokenizer=narrow)
    assert [path.name for path in tmp_path.iterdir()] == ["wide"]


def test_hash_is_that_of_the_ids(tmp_path: Path) -> None:
    with TokenWriter(tmp_path / "t", 256) as writer:
        writer.append("val", torch.tensor([1, 2]))
        writer.append("val", torch.tensor([3], dtype=torch.int32))
        digest = hashlib.sha256(b"\x01\0\x02\0\x03\0").hexdigest()
        assert writer.digest() == hashlib.sha256(f"uint16|val:{digest}".encode()).hexdigest()
    assert list(tmp_path.iterdir()) == []  # left without finish


def test_wrong_requests_are_worded(library: Library, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="did you mean 'openwebtext'"):
        prepare_collection("openwebtxt", tmp_path / "o")
    with pytest.raises(RunError, match="expected byte or gpt2, got 'char'"):
        prepare_collection("fineweb_edu", tmp_path / "o", tokenizer="char")
    with pytest.raises(RunError, match="SPLIT=FILE with a split of validation, test"):
        prepare_collection("wikitext103", tmp_path / "o", files=["x.parquet"])
    (tmp_path / "v.parquet").write_bytes(b"")
    file = str(tmp_path / "v.parquet")
    with pytest.raises(RunError, match="no file for the split test"):
        prepare_collection("wikitext103", tmp_path / "o", files=[f"validation={file}"])
    with pytest.raises(RunError, match="no such file"):
        prepare_collection("c4", tmp_path / "o", files=[str(tmp_path / "none.parquet")])
    library.splits = {}
    with pytest.raises(RunError, match=r"could not load allenai/c4 \(KeyError.*--files"):
        prepare_collection("c4", tmp_path / "o", tokenizer="byte")
    with pytest.raises(RunError, match="hyperstreams prepare --dataset c4 FOLDER"):
        open_data("c4", block_size=8)


def test_command(library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--dataset", "fineweb_edu", "--tokenizer", "byte"]
    assert main([*words, str(tmp_path / "out")]) == 0
    meta = read_tokens(tmp_path / "out")[1]
    assert meta["documents"] == {"train": 398, "val": 2}
    assert f"{meta['tokens']['train']:,} train, {meta['tokens']['val']:,} val" in (
        capsys.readouterr().out
    )
    assert main([*words, str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "text.txt", str(tmp_path / "b")]) == 2
    assert "expected a text (or --dataset NAME)" in capsys.readouterr().err
    assert main([*words, "--val_fraction", "0.1", str(tmp_path / "b")]) == 2
    assert "published one" in capsys.readouterr().err
