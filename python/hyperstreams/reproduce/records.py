"""Numbers behind a figure: long-format rows, and the files that go beside each picture."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..diagnostics import QUANTITIES, Capture, quantity
from .runs import CapturedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
COLUMNS = (
    *("figure", "panel", "run", "connection", "seed", "phase", "quantity"),
    *("site", "stream", "other", "value", "standard_error"),
)
"""phase: initial or trained. stream: the stream, or the destination of a mixer entry, whose source
is ``other``. standard_error: over held-out batches of one checkpoint; it is silent about seeds."""


def standard_error(name: str, capture: Capture) -> torch.Tensor:
    """Standard error of a quantity over batches, treating batches as independent; nan for one.

    Raises ValueError for the smallest and largest value of any token: they are no means.
    """
    if name.endswith(("_min", "_max")):
        raise ValueError(f"standard_error: name: expected no extreme over tokens, got {name!r}")
    if capture.batches < 2:
        return torch.full_like(quantity(name, capture), torch.nan)
    values = torch.stack([quantity(name, capture.batch(k)) for k in range(capture.batches)])
    return values.std(dim=0) / capture.batches**0.5


def quantity_rows(
    figure: str,
    panel: str,
    run: CapturedRun,
    name: str,
    *,
    sites: Sequence[str] | None = None,
) -> list[Row]:
    """Rows of one quantity of one run, initial and trained, at every site (or those named)."""
    rows: list[Row] = []
    for phase, capture in (("initial", run.initial), ("trained", run.trained)):
        values, error = quantity(name, capture), standard_error(name, capture)
        names = QUANTITIES[name].row_names(capture)
        for index in itertools.product(*(range(size) for size in values.shape)):
            if sites is None or names[index[0]] in sites:
                row = _row(figure, panel, run, phase, name, values, names, index)
                rows.append({**row, "standard_error": error[index].item()})
    return rows


def _row(
    figure: str,
    panel: str,
    run: CapturedRun,
    phase: str,
    name: str,
    values: torch.Tensor,
    sites: Sequence[str],
    index: tuple[int, ...],
) -> Row:
    """The row of one entry: ``index`` is (site, stream, other), as far as there are."""
    return {
        "figure": figure,
        "panel": panel,
        "run": run.label,
        "connection": run.connection,
        "seed": run.seed,
        "phase": phase,
        "quantity": name,
        "site": sites[index[0]],
        "stream": index[1] if len(index) > 1 else "",
        "other": index[2] if len(index) > 2 else "",
        "value": values[index].item(),
    }


def tensor_rows(
    figure: str,
    panel: str,
    run: CapturedRun,
    phase: str,
    name: str,
    values: torch.Tensor,
    sites: Sequence[str],
) -> list[Row]:
    """Rows of a tensor whose first axis is ``sites``; further axes are stream and other."""
    places = itertools.product(*(range(size) for size in values.shape))
    return [_row(figure, panel, run, phase, name, values, sites, index) for index in places]


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Rows as CSV; floats in full precision."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: repr(v) if isinstance(v, float) else v for k, v in row.items()})


def write_figure(
    out: Path,
    name: str,
    figure: Figure,
    rows: Iterable[Row],
    details: dict[str, Any],
    columns: Sequence[str] = COLUMNS,
) -> list[Path]:
    """``name.png``, ``.pdf``, ``.csv`` and ``.json`` in ``out``; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.{suffix}" for suffix in ("png", "pdf", "csv", "json")]
    for path in paths[:2]:
        # No date inside: equal numbers give equal files.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        figure.savefig(path, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once: every file has the same layout
    write_csv(paths[2], rows, columns)
    paths[3].write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    return paths
