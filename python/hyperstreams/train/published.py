"""Published text collections, read through the ``datasets`` library into the token format.

Which text, which split and which separator follow the code released with arXiv 2606.03483 (for
OpenWebText and Tiny Shakespeare: nanoGPT, which it is built on), so that a loss on ``val.bin`` is a
loss on the published validation documents.

Written against datasets 5.2 and tested on small made files. The downloads themselves have not been
run by the authors: names on the hub may move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from .errors import RunError, require
from .memmap import TokenWriter
from .options import unknown_name
from .tokenizers import Tokenizer, make_tokenizer

_BATCH = 1000  # documents tokenised at a time


@dataclass(frozen=True)
class Collection:
    """A published collection of documents and how its published splits are made.

    ``splits`` maps our splits to the library's, joined in order. With ``val_fraction`` the one
    split named there is shuffled and cut in two by the library (``train_test_split(test_size=
    val_fraction, seed=seed)``): the last bit of the published split depends on the order and the
    number of documents, hence ``documents``, the number it was drawn from.

    ``streaming`` reads while downloading; ``skip_blank`` leaves documents of white space out;
    ``joined`` makes one text of all, without separators; ``rows`` says what a document of a
    ``.txt`` file is; ``tokenizer`` is the published one.
    """

    path: str
    title: str
    config: str | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"train": ("train",)})
    val_fraction: float | None = None
    seed: int | None = None
    documents: int | None = None
    streaming: bool = False
    skip_blank: bool = False
    joined: bool = False
    rows: Literal["document", "line"] = "document"
    tokenizer: str = "gpt2"


COLLECTIONS: dict[str, Collection] = {
    "openwebtext": Collection(
        path="Skylion007/openwebtext",
        title="OpenWebText, 0.0005 of its documents for validation (seed 2357)",
        val_fraction=0.0005,
        seed=2357,
        documents=8_013_769,
    ),
    "fineweb_edu": Collection(
        path="HuggingFaceFW/fineweb-edu",
        title="FineWeb-Edu sample-10BT, 0.005 of its documents for validation (seed 42)",
        config="sample-10BT",
        val_fraction=0.005,
        seed=42,
    ),
    # A document is a line here, as released: every paragraph and heading ends with the separator.
    "wikitext103": Collection(
        path="Salesforce/wikitext",
        title="WikiText-103, validation and test split, for evaluation",
        config="wikitext-103-v1",
        splits={"val": ("validation",), "test": ("test",)},
        skip_blank=True,
        rows="line",
    ),
    # Published as "C4 test"; C4 has no test split, the released code reads the validation split.
    "c4": Collection(
        path="allenai/c4",
        title="C4 en, validation split, for evaluation",
        config="en",
        splits={"val": ("validation",)},
        streaming=True,
        skip_blank=True,
    ),
    # The library's validation and test splits are the two halves of the usual last tenth.
    "tiny_shakespeare": Collection(
        path="karpathy/tiny_shakespeare",
        title="Tiny Shakespeare, the last tenth for validation",
        splits={"train": ("train",), "val": ("validation", "test")},
        joined=True,
        tokenizer="char",
    ),
}
"""What ``hyperstreams prepare --dataset NAME`` knows."""


def prepare_collection(
    name: str,
    out: str | Path,
    *,
    tokenizer: str | Tokenizer = "auto",
    files: Sequence[str] = (),
    revision: str | None = None,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Tokenise a published collection into a folder of the format; returns its meta.

    Args:
        name: a key of :data:`COLLECTIONS`.
        out: the folder to make.
        tokenizer: a name, a tokeniser, or ``"auto"`` for the published one.
        files: read these ``.parquet``, ``.jsonl``, ``.json`` or ``.txt`` files (a column or key
            ``text``; a ``.txt`` file is one document, for WikiText one a line) in place of a
            download; ``SPLIT=FILE`` where the collection has several of the library's splits.
        revision: commit or branch of the download.
        workers: processes that the library downloads with.
        progress: count documents on stderr.

    ``meta.json`` records the collection, the split and its seed, documents and separator, the
    library's version, and as ``sha256`` the hash of the ids themselves. ``bytes`` counts the text
    without separators.
    """
    if name not in COLLECTIONS:
        raise unknown_name("dataset", name, COLLECTIONS)
    if Path(out).exists():
        raise RunError(f"prepare: {out} exists already")
    collection = COLLECTIONS[name]
    splits, library = _load(name, collection, files=files, revision=revision, workers=workers)
    batches = {split: _texts(parts, collection) for split, parts in splits.items()}
    if collection.joined:
        # One text of about a megabyte, which the character tokeniser has to see first.
        whole = {split: "".join(chain.from_iterable(texts)) for split, texts in batches.items()}
        batches = {split: iter([[text]]) for split, text in whole.items()}
    else:
        whole = {}
    if isinstance(tokenizer, str):
        chosen = collection.tokenizer if tokenizer == "auto" else tokenizer
        if chosen == "char" and not collection.joined:
            raise RunError(
                f"dataset {name}: tokenizer: expected byte or gpt2, got 'char', whose alphabet "
                "would be that of the whole collection"
            )
        tokenizer = make_tokenizer(chosen, "".join(whole.values()))
    documents, sizes = dict.fromkeys(splits, 0), dict.fromkeys(splits, 0)
    with TokenWriter(out, tokenizer.vocab_size) as writer:
        for split, texts in batches.items():
            for batch in _counted(texts, split, progress):
                if collection.joined:
                    writer.append(split, tokenizer.encode(batch[0]))
                else:
                    writer.append(split, tokenizer.encode_documents(batch))
                documents[split] += len(batch)
                sizes[split] += sum(len(t.encode("utf-8", "surrogateescape")) for t in batch)
        return writer.finish(
            {
                "source": name,
                "sha256": writer.digest(),
                "tokenizer": tokenizer.describe(),
                "bytes": sizes,
                "documents": documents,
                "separator": None if collection.joined else tokenizer.document_end,
                "collection": {
                    "path": collection.path,
                    "config": collection.config,
                    "revision": revision,
                    "splits": {split: list(parts) for split, parts in collection.splits.items()},
                    "val_fraction": collection.val_fraction,
                    "seed": collection.seed,
                },
                "files": [str(Path(file).name) for file in files],
                "libraries": {"datasets": str(library)},
            }
        )


def _load(
    name: str, collection: Collection, *, files: Sequence[str], revision: str | None, workers: int
) -> tuple[dict[str, list[Any]], str]:
    """The library's data sets of each of our splits, and the library's version."""
    library = require("datasets", extra="data", purpose=f"dataset {name}")
    wanted = list(dict.fromkeys(chain.from_iterable(collection.splits.values())))
    if files:
        arguments = {"streaming": False, **_file_arguments(name, collection, files, wanted)}
    else:
        arguments = {
            "path": collection.path,
            "name": collection.config,
            "revision": revision,
            "streaming": collection.streaming,
        }
        if workers > 1 and not collection.streaming:
            arguments["num_proc"] = workers
    try:
        loaded = {part: library.load_dataset(split=part, **arguments) for part in wanted}
    except Exception as error:  # the library lets network and format errors through, of any type
        raise RunError(
            f"dataset {name}: datasets {library.__version__} could not load "
            f"{', '.join(files) or collection.path} ({type(error).__name__}: {error}); files on "
            "disk are read with --files, another version of the source with --revision"
        ) from error
    if collection.val_fraction is None:
        return {
            split: [loaded[part] for part in parts] for split, parts in collection.splits.items()
        }, library.__version__
    whole = loaded[wanted[0]]
    if collection.documents not in (None, len(whole)) and not files:
        raise RunError(
            f"dataset {name}: the published split was drawn from {collection.documents:,} "
            f"documents, {collection.path} now has {len(whole):,}: it would be another one; give "
            "an older state with --revision, or --files to go on with what you have"
        )
    halves = whole.train_test_split(
        test_size=collection.val_fraction, seed=collection.seed, shuffle=True
    )
    return {"train": [halves["train"]], "val": [halves["test"]]}, library.__version__


_FILE_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text"}


def _file_arguments(
    name: str, collection: Collection, files: Sequence[str], wanted: Sequence[str]
) -> dict[str, Any]:
    """What ``load_dataset`` has to be told to read ``files`` as the splits ``wanted``."""
    by_split: dict[str, list[str]] = {part: [] for part in wanted}
    kinds = set()
    for entry in files:
        part, _, file = entry.rpartition("=")
        part = part or (wanted[0] if len(wanted) == 1 else "")
        if part not in by_split:
            raise RunError(
                f"--files: dataset {name}: expected SPLIT=FILE with a split of "
                f"{', '.join(wanted)}, got {entry!r}"
            )
        if not Path(file).is_file():
            raise RunError(f"--files: no such file: {file}")
        by_split[part].append(file)
        kinds.add(_FILE_KINDS.get(Path(file).suffix))
    if missing := [part for part, found in by_split.items() if not found]:
        raise RunError(f"--files: dataset {name}: no file for the split {', '.join(missing)}")
    if len(kinds) != 1 or None in kinds:
        raise RunError(f"--files: expected files of one kind of {', '.join(_FILE_KINDS)}")
    kind = kinds.pop()
    extra = {"sample_by": collection.rows, "keep_linebreaks": True} if kind == "text" else {}
    return {"path": kind, "data_files": by_split, **extra}


def _texts(parts: Iterable[Any], collection: Collection) -> Iterator[list[str]]:
    """Documents in lists, the library's splits one after the other."""
    for part in parts:
        for batch in part.select_columns(["text"]).iter(batch_size=_BATCH):
            texts = batch["text"]
            if collection.skip_blank:
                texts = [text for text in texts if text and text.strip()]
            if texts:
                yield list(texts)


def _counted(batches: Iterable[list[str]], split: str, progress: bool) -> Iterator[list[str]]:
    if not progress:
        yield from batches
        return
    tqdm = require("tqdm", extra="data", purpose="the progress bar")
    with tqdm.tqdm(desc=split, unit=" documents", unit_scale=True) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
