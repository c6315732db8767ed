"""Where text comes from: the Python standard library's own sources, or a text file.

A corpus is two lists of documents, one to train on and one to validate on, plus the record that a
run keeps of them.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .errors import RunError

_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
)
_BUILTIN_VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Corpus:
    """Text split in two, and where it came from.

    ``files`` maps each source file to its split, ``sha256`` identifies names, contents and split.
    """

    source: str
    train: str
    val: str
    files: dict[str, str]
    sha256: str


def builtin_corpus(stdlib: str | Path | None = None) -> Corpus:
    """The ``.py`` files of the running Python's standard library, tests excluded, split by file.

    A file belongs to the validation split when the hash of its relative path falls in the lowest
    tenth: the split depends on nothing but the name, so that no file is ever in both and adding a
    file moves no other. The text differs between Python versions; ``sha256`` tells them apart.
    """
    folder = Path(stdlib if stdlib is not None else sysconfig.get_paths()["stdlib"])
    paths = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*.py")
        if _is_library_source(path.relative_to(folder))
    )
    texts: dict[str, list[str]] = {"train": [], "val": []}
    files: dict[str, str] = {}
    digest = hashlib.sha256(b"builtin corpus, split by file, 1")
    for name, path in paths:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        files[name] = _split_of(name)
        texts[files[name]].append(content.decode("utf-8", "surrogateescape"))
        digest.update(f"{name}\0{files[name]}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    if not (texts["train"] and texts["val"]):
        raise RunError(
            f"dataset builtin: this Python ships no standard-library sources at {folder}; "
            "give a text file instead: --dataset FILE"
        )
    return Corpus(
        source="builtin",
        train="\n".join(texts["train"]),
        val="\n".join(texts["val"]),
        files=files,
        sha256=digest.hexdigest(),
    )


def _is_library_source(path: Path) -> bool:
    folders = path.parts[:-1]
    # Written by the build of this very Python, with its paths: not the same text elsewhere.
    generated = path.name.startswith("_sysconfigdata") or any(
        f.startswith("config-") for f in folders
    )
    return not generated and not _SKIPPED_FOLDERS.intersection(folders)


def _split_of(name: str) -> str:
    position = int.from_bytes(
        hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )
    return "val" if position < _BUILTIN_VAL_FRACTION * 2**64 else "train"


def text_file_corpus(path: str | Path, *, val_fraction: float) -> Corpus:
    """One text file: the beginning to train on, the last ``val_fraction`` to validate on.

    That is the layout of Tiny Shakespeare (one ``input.txt``, 0.1).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"dataset {path}: cannot be read ({error.strerror})") from error
    if not content:
        raise RunError(f"dataset {path}: the file is empty")
    text = content.decode("utf-8", "surrogateescape")
    cut = len(text) - int(len(text) * val_fraction)
    digest = hashlib.sha256(f"text file, tail {val_fraction!r}, 1\0".encode() + content)
    return Corpus(
        source=str(path.resolve()),
        train=text[:cut],
        val=text[cut:],
        files={path.name: f"train[:{cut}] val[{cut}:]"},
        sha256=digest.hexdigest(),
    )
