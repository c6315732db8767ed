"""Corpora, the token format, and windows."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
import torch
from hyperstreams.train import (
    ByteTokenizer,
    RunError,
    TokenData,
    builtin_corpus,
    open_data,
    prepare,
)
from hyperstreams.train import data as data_module
from hyperstreams.train.memmap import read_tokens, token_dtype, write_tokens

META = {
    "tokenizer": {"name": "byte", "vocab_size": 256},
    "source": "test",
    "sha256": "0",
    "bytes": {"train": 40, "val": 40},
}


def stdlib(folder: Path) -> Path:
    for i in range(40):
        (folder / "package").mkdir(parents=True, exist_ok=True)
        (folder / "package" / f"m{i:02}.py").write_text(f"value = {i}\n" * 20)
    for skipped in ("test/a.py", "package/tests/b.py", "site-packages/c.py", "_sysconfigdata_x.py"):
        (folder / skipped).parent.mkdir(parents=True, exist_ok=True)
        (folder / skipped).write_text("skipped = True\n")
    return folder


def test_builtin_corpus_is_split_by_file(tmp_path: Path) -> None:
    corpus = builtin_corpus(stdlib(tmp_path))
    assert len(corpus.files) == 40
    assert set(corpus.files.values()) == {"train", "val"}
    assert "skipped" not in corpus.train + corpus.val
    for name, split in corpus.files.items():
        text = (tmp_path / name).read_text()
        inside = {"train": corpus.train, "val": corpus.val}
        assert text in inside.pop(split)
        assert text not in next(iter(inside.values()))


def test_builtin_corpus_is_deterministic(tmp_path: Path) -> None:
    folder = stdlib(tmp_path)
    first = builtin_corpus(folder)
    assert builtin_corpus(folder) == first
    (folder / "package" / "new.py").write_text("x = 1\n")
    more = builtin_corpus(folder)
    assert more.sha256 != first.sha256
    assert {name: more.files[name] for name in first.files} == first.files
    (folder / "package" / "new.py").unlink()
    (folder / "package" / "m00.py").write_text("value = 1\n")
    assert builtin_corpus(folder).sha256 != first.sha256


def test_stdlib_without_sources_is_worded(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ships no standard-library sources.*--dataset FILE"):
        builtin_corpus(tmp_path)


def test_this_python_has_a_corpus() -> None:
    data = open_data("builtin", block_size=128)
    assert data.train.numel() > 5_000_000
    assert 0.05 < data.val.numel() / data.train.numel() < 0.3
    assert data.meta["files"]["argparse.py"] in ("train", "val")


def test_text_file_is_split_at_its_end(text_file: Path) -> None:
    data = open_data(str(text_file), tokenizer="char", block_size=16, val_fraction=0.25)
    text = text_file.read_text(encoding="utf-8")
    whole = torch.cat([data.train.to(torch.int64), data.val.to(torch.int64)])
    assert data.tokenizer.decode(whole) == text
    assert data.val.numel() == len(text) // 4


def test_tokens_are_cached(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYPERSTREAMS_CACHE", str(tmp_path))
    first = open_data(str(text_file), block_size=16)
    monkeypatch.setattr(data_module, "tokenize", None)
    second = open_data(str(text_file), block_size=16)
    assert torch.equal(first.train, second.train)
    assert [p.name for p in tmp_path.iterdir()] == [f"byte-{first.sha256[:20]}"]


def test_unwritable_cache_is_said(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("HYPERSTREAMS_CACHE", str(blocked))
    with pytest.warns(UserWarning, match="tokens stay in memory"):
        data = open_data(str(text_file), block_size=16)
    assert data.train_batch(0, 2, seed=0)[0].shape == (2, 16)


def test_prepared_folder_is_a_dataset(text_file: Path, tmp_path: Path) -> None:
    prepare(str(text_file), tmp_path / "tokens", tokenizer="char")
    from_text = open_data(str(text_file), tokenizer="char", block_size=16)
    from_folder = open_data(str(tmp_path / "tokens"), block_size=16)
    assert torch.equal(from_text.val, from_folder.val)
    assert from_folder.tokenizer.describe() == from_text.tokenizer.describe()
    assert from_folder.sha256 == from_text.sha256
    with pytest.raises(RunError, match="its tokens are 'char', tokenizer says 'byte'"):
        open_data(str(tmp_path / "tokens"), tokenizer="byte", block_size=16)
    with pytest.raises(RunError, match="exists already"):
        prepare(str(text_file), tmp_path / "tokens")


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_do_not_wrap(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size) == dtype
    meta = {**META, "tokenizer": {"name": "byte", "vocab_size": vocab_size}}
    top = torch.tensor([0, 1, vocab_size - 1])
    write_tokens(tmp_path / "ok", {"train": top, "val": top}, meta)
    splits, stored = read_tokens(tmp_path / "ok")
    assert splits["train"].to(torch.int64).tolist() == top.tolist()
    assert (tmp_path / "ok" / "train.bin").stat().st_size == 3 * (2 if dtype == "uint16" else 4)
    assert stored["tokens"] == {"train": 3, "val": 3}
    for bad in (vocab_size, -1):
        with pytest.raises(RunError, match=rf"expected ids in 0..{vocab_size - 1}, got {bad}"):
            write_tokens(tmp_path / "bad", {"train": torch.tensor([bad]), "val": top}, meta)
    assert [p.name for p in tmp_path.iterdir()] == ["ok"]


def test_token_file_is_little_endian(tmp_path: Path) -> None:
    write_tokens(tmp_path / "t", {"train": torch.tensor([1, 255]), "val": torch.tensor([3])}, META)
    assert (tmp_path / "t" / "train.bin").read_bytes() == b"\x01\x00\xff\x00"


def test_damaged_folders_are_worded(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    ids = torch.arange(40)
    write_tokens(folder, {"train": ids, "val": ids}, META)
    os.truncate(folder / "val.bin", 78)
    with pytest.raises(RunError, match=r"val.bin: expected 80 bytes as meta.json says, got 78"):
        read_tokens(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": "other"}))
    with pytest.raises(RunError, match="expected format 'hyperstreams-tokens-1', got 'other'"):
        read_tokens(folder)
    del meta["tokens"], meta["bytes"]
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(RunError, match=r"meta\.json: bytes, tokens missing"):
        read_tokens(folder)
    (folder / "meta.json").unlink()
    with pytest.raises(RunError, match=r"no meta\.json"):
        open_data(str(folder), block_size=8)


def test_ids_beyond_the_tokeniser_are_named() -> None:
    ids = torch.full((40,), 300)
    data = open_data_from(ids)
    with pytest.raises(RunError, match="token 300 is outside the tokeniser's vocabulary of 256"):
        data.train_batch(0, 1, seed=0)


def open_data_from(ids: torch.Tensor) -> TokenData:
    return TokenData(train=ids, val=ids, block_size=8, tokenizer=ByteTokenizer(), meta=META)


def test_short_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a" * 100)
    with pytest.raises(
        RunError, match="val split has 10 tokens, expected more than block_size = 16"
    ):
        open_data(str(path), block_size=16)
    with pytest.raises(RunError, match="no such path"):
        open_data(str(tmp_path / "none"), block_size=16)
    path.write_text("")
    with pytest.raises(RunError, match="is empty"):
        open_data(str(path), block_size=16)


def test_training_windows_follow_seed_and_step(text_file: Path) -> None:
    data = open_data(str(text_file), block_size=16)
    tokens, targets = data.train_batch(5, 4, seed=1)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert torch.equal(data.train_batch(5, 4, seed=1)[0], tokens)
    assert not torch.equal(data.train_batch(6, 4, seed=1)[0], tokens)
    assert not torch.equal(data.train_batch(5, 4, seed=2)[0], tokens)
    state = torch.get_rng_state()
    data.train_batch(7, 4, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_training_window_can_be_drawn() -> None:
    data = open_data_from(torch.arange(11))
    first = {int(t) for step in range(60) for t in data.train_batch(step, 2, seed=0)[0][:, 0]}
    assert first == {0, 1, 2}


@pytest.mark.parametrize(("length", "windows", "expected"), [(400, 6, 6), (33, 6, 4), (9, 6, 1)])
def test_evaluation_windows_are_fixed_and_apart(length: int, windows: int, expected: int) -> None:
    data = open_data_from(torch.arange(length) % 256)
    batches = list(data.eval_batches(4, windows))
    again = list(data.eval_batches(4, windows))
    assert sum(len(tokens) for tokens, _ in batches) == expected
    for (tokens, targets), (same, _) in zip(batches, again, strict=True):
        assert torch.equal(tokens, same)
        assert torch.equal(tokens[:, 1:], targets[:, :-1])
    starts = [int(i) for i in torch.cat([tokens[:, 0] for tokens, _ in batches])]
    if length <= 256:
        assert starts[0] == 0
        assert all(b - a >= data.block_size for a, b in itertools.pairwise(starts))
