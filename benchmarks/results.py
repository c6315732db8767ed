"""Writing a result: JSON, a Markdown table beside it and, with matplotlib, a picture."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hyperstreams.train.environment import describe_environment

from .peers import PACKAGES
from .plot import draw
from .report import markdown

FOLDER = Path(__file__).parent / "results"
FORMAT = 2
"""Of the JSON: ``environment``, ``roofs`` by threads, ``cases``. 1 was one entry for each table."""


def environment_record(command: list[str]) -> dict[str, Any]:
    """Hardware, versions (peers' too), date and commit, and what decides about page faults."""
    found: dict[str, str | None] = {}
    for package in PACKAGES.values():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return describe_environment() | {"command": command, "peers": found, "memory": _memory()}


def _memory() -> dict[str, str]:
    """Settings of the allocator: where a call's results come from memory mapped anew, page faults
    can take longer than the call."""
    settings = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("MALLOC_") or name in ("LD_PRELOAD", "THP_MEM_ALLOC_ENABLE")
    }
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if huge_pages.exists():
        settings["transparent_hugepage"] = huge_pages.read_text().strip()
    return settings


def default_path(kind: str, device: str, threads: int) -> Path:
    """``results/<kind>_<device>_<threads>threads_<day>.json``; without a kind, all cases."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    stem = re.sub(r"[^\w.+-]+", "-", kind).strip("-")
    return FOLDER / f"{stem + '_' if stem else ''}{device}_{threads}threads_{day}.json"


def beside(path: Path, suffix: str) -> Path:
    """``path`` with this ending in place of ``.json``, or after whatever else it ends in."""
    return path.with_name(path.name.removesuffix(".json") + suffix)


def write_json(result: Mapping[str, Any], path: Path) -> Path:
    """The JSON file, with that ending."""
    path = beside(path, ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def write(result: Mapping[str, Any], path: Path) -> list[Path]:
    """The files written; the picture is left out, with a word, where matplotlib is missing."""
    written = [write_json(result, path), beside(path, ".md")]
    written[1].write_text(markdown(result), encoding="utf-8")
    try:
        draw(result, beside(path, ".png"))
        written.append(beside(path, ".png"))
    except ImportError as error:
        print(f"no picture: {error}")
    return written
