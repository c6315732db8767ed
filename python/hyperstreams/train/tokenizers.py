"""Text to token ids and back: bytes, characters, and GPT-2's byte pairs (with ``tiktoken``)."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .errors import RunError, require
from .options import unknown_name


class Tokenizer(ABC):
    """A reversible map from text to ids in ``0 .. vocab_size - 1``."""

    name: str
    vocab_size: int
    document_end: int | None = None
    """The id that is written after each document of a collection; None where there is none."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Ids of ``text``, int64 ``[tokens]``."""

    def encode_documents(self, texts: Sequence[str]) -> Tensor:
        """Ids of all texts, each followed by ``document_end``, int64 ``[tokens]``."""
        if self.document_end is None:
            raise RunError(
                f"the {self.name} tokeniser has no id to end a document with; "
                "expected byte or gpt2 for a collection of documents"
            )
        end = torch.tensor([self.document_end])
        return torch.cat([part for text in texts for part in (self.encode(text), end)])

    @abstractmethod
    def decode(self, tokens: Tensor) -> str:
        """Text of a one-dimensional tensor of ids."""

    def describe(self) -> dict[str, Any]:
        """JSON-able description from which :func:`tokenizer_from` builds an equal tokeniser."""
        return {"name": self.name, "vocab_size": self.vocab_size}


class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte. Bytes that are not UTF-8 survive as surrogate escapes.

    Documents end with byte 0, which text does not hold.
    """

    name = "byte"
    vocab_size = 256
    document_end = 0

    def encode(self, text: str) -> Tensor:
        data = bytearray(text.encode("utf-8", "surrogateescape"))
        if not data:
            return torch.empty(0, dtype=torch.int64)
        return torch.frombuffer(data, dtype=torch.uint8).to(torch.int64)

    def decode(self, tokens: Tensor) -> str:
        return bytes(tokens.tolist()).decode("utf-8", "replace")


class CharTokenizer(Tokenizer):
    """One token per character of a fixed alphabet, numbered in code point order."""

    name = "char"

    def __init__(self, characters: str) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.vocab_size = len(self.characters)
        if not self.characters:
            raise RunError("char tokeniser: expected at least one character, got none")

    @cached_property
    def _code_points(self) -> Tensor:
        return torch.tensor([ord(character) for character in self.characters])

    def encode(self, text: str) -> Tensor:
        if not text:
            return torch.empty(0, dtype=torch.int64)
        data = bytearray(text.encode("utf-32-le", "surrogatepass"))
        points = torch.frombuffer(data, dtype=torch.int32).to(torch.int64)
        tokens = torch.searchsorted(self._code_points, points).clamp_(max=self.vocab_size - 1)
        unknown = self._code_points[tokens] != points
        if bool(unknown.any()):
            character = chr(int(points[unknown][0]))
            raise RunError(
                f"char tokeniser: {character!r} is not among the training text's characters"
            )
        return tokens

    def decode(self, tokens: Tensor) -> str:
        return "".join(self.characters[token] for token in tokens.tolist())

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "characters": self.characters}


class GPT2Tokenizer(Tokenizer):
    """GPT-2's byte pair encoding, 50,257 tokens, from ``tiktoken``."""

    name = "gpt2"
    vocab_size = 50_257
    document_end = 50_256  # <|endoftext|>

    def __init__(self) -> None:
        tiktoken = require("tiktoken", extra="gpt2", purpose="the gpt2 tokeniser")
        try:
            self._encoding = tiktoken.get_encoding("gpt2")
        except Exception as error:  # tiktoken lets the errors of its download through, of any type
            raise RunError(
                "the gpt2 tokeniser: tiktoken could not load its vocabulary, which it downloads on "
                f"first use ({type(error).__name__}); byte and char need no download"
            ) from error

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self._encoding.encode_ordinary(text), dtype=torch.int64)

    def encode_documents(self, texts: Sequence[str]) -> Tensor:
        # In threads of tiktoken's own: a list at a time is several times faster than one by one.
        rows = self._encoding.encode_ordinary_batch(list(texts))
        ids = itertools.chain.from_iterable((*row, self.document_end) for row in rows)
        return torch.tensor(list(ids), dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        return str(self._encoding.decode(tokens.tolist()))


TOKENIZERS = ("byte", "char", "gpt2")


def make_tokenizer(name: str, text: str) -> Tokenizer:
    """A tokeniser by name; ``text`` gives the character tokeniser its alphabet."""
    if name == "byte":
        return ByteTokenizer()
    if name == "char":
        return CharTokenizer(text)
    if name == "gpt2":
        return GPT2Tokenizer()
    raise unknown_name("tokenizer", name, TOKENIZERS)


def tokenizer_from(description: Mapping[str, Any]) -> Tokenizer:
    """The inverse of :meth:`Tokenizer.describe`."""
    return make_tokenizer(description["name"], description.get("characters", ""))
