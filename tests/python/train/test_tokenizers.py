"""Tokenisers: round trips, alphabets, and words when the optional one is absent."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from hyperstreams.train import ByteTokenizer, CharTokenizer, MissingExtraError, RunError
from hyperstreams.train.tokenizers import GPT2Tokenizer, tokenizer_from
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(text=TEXT)
def test_round_trips(text: str) -> None:
    for tokenizer in (ByteTokenizer(), CharTokenizer(text)):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == torch.int64
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < tokenizer.vocab_size
        assert tokenizer.decode(tokens) == text
        again = tokenizer_from(tokenizer.describe())
        assert torch.equal(again.encode(text), tokens)


def test_bytes_that_are_not_utf8_are_kept() -> None:
    raw = bytes(range(256))
    text = raw.decode("utf-8", "surrogateescape")
    assert ByteTokenizer().encode(text).tolist() == list(raw)


def test_empty_text() -> None:
    assert ByteTokenizer().encode("").shape == (0,)
    assert CharTokenizer("a").encode("").shape == (0,)


def test_characters_are_numbered_in_code_point_order() -> None:
    tokenizer = CharTokenizer("bca\U0001f600a")
    assert tokenizer.encode("abc\U0001f600").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["a!", "Z", "\U0001f600"])
def test_unknown_character_is_named(text: str) -> None:
    with pytest.raises(RunError, match="is not among the training text's characters"):
        CharTokenizer("abc").encode(text)


def test_gpt2_without_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtraError, match=r"hyperstreams\[gpt2\]"):
        GPT2Tokenizer()


def test_gpt2_without_its_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=fail))
    with pytest.raises(RunError, match="downloads on first use"):
        GPT2Tokenizer()


def test_gpt2_uses_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = SimpleNamespace(
        encode_ordinary=lambda text: [50_000 + ord(character) % 2 for character in text],
        encode_ordinary_batch=lambda texts: [[50_000] * len(text) for text in texts],
        decode=lambda tokens: "".join("ab"[token - 50_000] for token in tokens),
    )
    module = SimpleNamespace(get_encoding=lambda name: encoding)
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    tokenizer = GPT2Tokenizer()
    assert tokenizer.encode("ab").tolist() == [50_001, 50_000]
    assert tokenizer.decode(torch.tensor([50_000])) == "a"
    assert tokenizer.describe() == {"name": "gpt2", "vocab_size": 50_257}
    assert tokenizer.encode_documents(["aa", "", "a"]).tolist() == [
        50_000, 50_000, 50_256, 50_256, 50_000, 50_256,
    ]  # fmt: skip


def test_documents_end_with_an_id_of_their_own() -> None:
    assert ByteTokenizer().encode_documents(["ab", ""]).tolist() == [97, 98, 0, 0]
    with pytest.raises(RunError, match="char tokeniser has no id to end a document with"):
        CharTokenizer("ab").encode_documents(["ab"])
