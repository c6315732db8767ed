"""Token data for training and evaluation: random training windows, fixed evaluation windows."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .corpus import Corpus, builtin_corpus, text_file_corpus
from .errors import RunError
from .memmap import read_tokens, write_tokens
from .published import COLLECTIONS
from .tokenizers import Tokenizer, make_tokenizer, tokenizer_from


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of the others and the same on every platform."""
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class TokenData:
    """Two memory-mapped splits read in windows of ``block_size`` tokens.

    Training windows depend on ``(seed, step)`` alone: two models with one seed see the same
    batches, and a resumed run continues where it stopped without stored state. ``val`` is the
    split called ``val_name``; ``train`` is None in text that is only evaluated on.
    """

    train: Tensor | None
    val: Tensor
    block_size: int
    tokenizer: Tokenizer
    meta: dict[str, Any]
    val_name: str = "val"

    def __post_init__(self) -> None:
        for name, tokens in (("train", self.train), (self.val_name, self.val)):
            if tokens is not None and tokens.numel() <= self.block_size:
                raise RunError(
                    f"dataset {self.meta.get('source')}: the {name} split has {tokens.numel()} "
                    f"tokens, expected more than block_size = {self.block_size}"
                )

    @property
    def sha256(self) -> str:
        """Identity of the text, its split and its tokens."""
        return str(self.meta["sha256"])

    @property
    def val_bytes_per_token(self) -> float:
        """Mean UTF-8 bytes of a validation token: nats per token / this = nats per byte."""
        return float(self.meta["bytes"][self.val_name]) / self.val.numel()

    def train_batch(self, step: int, batch_size: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """The windows of one step: ``(tokens, targets)``, int64 ``[batch_size, block_size]``."""
        train = self.training_split()
        generator = torch.Generator().manual_seed(derive_seed(seed, "data", step))
        high = train.numel() - self.block_size
        offsets = torch.randint(high, (batch_size,), generator=generator)
        return self._windows(train, offsets.tolist())

    def training_split(self) -> Tensor:
        """``train``, or an error for text that is only evaluated on."""
        if self.train is None:
            source = self.meta.get("source")
            raise RunError(f"dataset {source}: no train split, nothing to train on")
        return self.train

    def eval_batches(self, batch_size: int, windows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """``windows`` validation windows at even distances, always the same ones.

        Windows do not overlap; when the split holds fewer, all that fit are used.
        """
        span = self.val.numel() - self.block_size
        count = min(windows, (self.val.numel() - 1) // self.block_size)
        offsets = [i * (span - 1) // max(count - 1, 1) for i in range(count)]
        for first in range(0, count, batch_size):
            yield self.val_windows(offsets[first : first + batch_size])

    def val_windows(self, offsets: list[int]) -> tuple[Tensor, Tensor]:
        """Validation windows that begin at ``offsets``: ``(tokens, targets)``."""
        return self._windows(self.val, offsets)

    def _windows(self, split: Tensor, offsets: list[int]) -> tuple[Tensor, Tensor]:
        rows = [split[offset : offset + self.block_size + 1] for offset in offsets]
        tokens = torch.stack(rows).to(torch.int64)
        if int(tokens.max()) >= self.tokenizer.vocab_size:
            raise RunError(
                f"dataset {self.meta.get('source')}: token {int(tokens.max())} is outside the "
                f"tokeniser's vocabulary of {self.tokenizer.vocab_size}"
            )
        return tokens[:, :-1], tokens[:, 1:].contiguous()


def open_data(
    dataset: str,
    *,
    tokenizer: str = "auto",
    block_size: int,
    val_fraction: float = 0.1,
    val_name: str = "val",
) -> TokenData:
    """Tokens of ``"builtin"``, of a text file, or of a folder in the memory-mapped format.

    ``val_name`` is the split to evaluate on, ``"test"`` in some folders. Tokens of text are cached
    under :func:`cache_dir`, by the hash of text, split and tokeniser. ``tokenizer="auto"`` means
    the folder's own, and bytes for text.
    """
    path = Path(dataset)
    if dataset != "builtin" and not path.exists():
        hint = f"; make one: hyperstreams prepare --dataset {dataset} FOLDER"
        raise RunError(
            f"dataset {dataset}: expected 'builtin', a text file or a folder; no such path"
            + (hint if dataset in COLLECTIONS else "")
        )
    if dataset != "builtin" and path.is_dir():
        splits, meta = read_tokens(path)
        stored = meta["tokenizer"]["name"]
        if tokenizer not in ("auto", stored):
            raise RunError(
                f"dataset {dataset}: its tokens are {stored!r}, tokenizer says {tokenizer!r}"
            )
    else:
        splits, meta = _tokens_of_text(load_corpus(dataset, val_fraction=val_fraction), tokenizer)
    if val_name not in splits:
        raise RunError(
            f"dataset {dataset}: expected a split of {', '.join(splits)}, got {val_name!r}"
        )
    return TokenData(
        train=splits.get("train"),
        val=splits[val_name],
        block_size=block_size,
        tokenizer=tokenizer_from(meta["tokenizer"]),
        meta=meta,
        val_name=val_name,
    )


def load_corpus(dataset: str, *, val_fraction: float) -> Corpus:
    """The text of ``"builtin"`` or of a file."""
    if dataset == "builtin":
        return builtin_corpus()
    return text_file_corpus(dataset, val_fraction=val_fraction)


def prepare(
    dataset: str, out: str | Path, *, tokenizer: str = "byte", val_fraction: float = 0.1
) -> dict[str, Any]:
    """Tokenise ``"builtin"`` or a text file into a folder of the format; returns its meta."""
    if Path(out).exists():
        raise RunError(f"prepare: {out} exists already")
    splits, meta = tokenize(load_corpus(dataset, val_fraction=val_fraction), tokenizer)
    write_tokens(out, splits, meta)
    return meta


def tokenize(corpus: Corpus, tokenizer: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Ids of both splits and the meta data that goes with them."""
    made = make_tokenizer(tokenizer, corpus.train + corpus.val)
    splits = {"train": made.encode(corpus.train), "val": made.encode(corpus.val)}
    meta = {
        "source": corpus.source,
        "sha256": _identity(corpus, tokenizer),
        "tokenizer": made.describe(),
        "tokens": {name: ids.numel() for name, ids in splits.items()},
        "bytes": {
            "train": len(corpus.train.encode("utf-8", "surrogateescape")),
            "val": len(corpus.val.encode("utf-8", "surrogateescape")),
        },
        "files": corpus.files,
    }
    return splits, meta


def cache_dir() -> Path:
    """``$HYPERSTREAMS_CACHE``, or ``hyperstreams`` in the user's cache directory."""
    if "HYPERSTREAMS_CACHE" in os.environ:
        return Path(os.environ["HYPERSTREAMS_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperstreams"


def _identity(corpus: Corpus, tokenizer: str) -> str:
    return hashlib.sha256(f"{corpus.sha256}:{tokenizer}".encode()).hexdigest()


def _tokens_of_text(corpus: Corpus, tokenizer: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    name = "byte" if tokenizer == "auto" else tokenizer
    folder = cache_dir() / f"{name}-{_identity(corpus, name)[:20]}"
    if not folder.exists():
        splits, meta = tokenize(corpus, name)
        try:
            write_tokens(folder, splits, meta)
        except OSError as error:
            if not folder.is_dir():  # otherwise another process was faster
                warnings.warn(
                    f"tokens stay in memory: {folder} cannot be written ({error})", stacklevel=2
                )
                return splits, meta
    return read_tokens(folder)
