"""Several connections over several seeds, on the same data in the same order, in one table."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models import GPT
from ..nn import FullPrecisionModule
from .atomic import write_text
from .config import build_config, known_settings
from .environment import describe_environment
from .errors import RunError
from .options import convert, unknown_name
from .run import run_training
from .run_dir import LoadedRun, RunSummary, load_run

SHORTHANDS: dict[str, dict[str, object]] = {
    "lss": {"expand": "learned_scale"},
    "unit": {"expand": "unit_scale"},
    "constant": {"expand": "constant_scale"},
    "sign": {"expand": "random_sign"},
    "orthogonal": {"expand": "orthogonal"},
    "embedding": {"expand": "embedding"},
    "noise": {"expand": "noise"},
}
"""What may follow a ``+`` beside ``key=value``. ``lss``: Learned Stream Scaling."""

Measure = Callable[[LoadedRun], Mapping[str, float]]


@dataclass(frozen=True)
class Comparison:
    """One row per specification, and everything needed to make the runs again.

    ``rows`` are JSON-able. ``loss_mean`` and ``loss_spread`` (sample standard deviation; None for
    one seed) are over seeds, in nats per token on the fixed validation windows.
    ``difference_mean`` and ``difference_spread`` are of the loss minus the first row's with the
    same seed. ``interrupted`` names the signal that ended the comparison early.
    """

    rows: list[dict[str, Any]]
    settings: dict[str, object]
    seeds: list[int]
    interrupted: str | None = None


def parse_spec(text: str) -> dict[str, object]:
    """Settings of a specification: ``connection``, then ``+shorthand`` or ``+key=value`` each.

    ``"mhc_lite+lss"`` is ``connection = "mhc_lite", expand = "learned_scale"``;
    ``"mhc+n_streams=2"`` is ``connection = "mhc", n_streams = 2``.
    """
    known = known_settings()
    connection, *additions = text.split("+")
    settings: dict[str, object] = {"connection": connection}
    for addition in additions:
        name, equals, value = addition.partition("=")
        if not equals:
            if name not in SHORTHANDS:
                raise unknown_name("addition", name, [*SHORTHANDS, *known])
            settings.update(SHORTHANDS[name])
        elif name not in known:
            raise unknown_name("setting", name, known)
        else:
            settings[name] = convert(name, known[name], value)
    return settings


def run_comparison(
    settings: Mapping[str, object],
    specs: Sequence[str],
    seeds: Sequence[int],
    out_dir: str | Path,
    *,
    progress: bool | str = True,
    measure: Measure | None = None,
    on_run: Callable[[str, int, RunSummary], None] | None = None,
) -> Comparison:
    """Train every specification with every seed, or reuse the run that is there, and tabulate.

    A run lives in ``out_dir/runs`` under a name with the hash of its settings: a finished one is
    reused, an interrupted one is continued. ``measure`` adds columns of its own, computed from
    each trained run; a name that it gives for no run of a row is None there. ``on_run`` is called
    with specification, seed and summary as each run is done. Writes ``compare.json``,
    ``compare.csv`` and ``compare.md`` into ``out_dir``, except after an interruption.

    All specifications are checked before the first run begins.
    """
    if not specs or not seeds:
        raise RunError("compare: expected at least one connection and one seed")
    for name, values in (("connections", specs), ("seeds", seeds)):
        if len(set(values)) != len(values):
            raise RunError(
                f"compare: {name}: expected each once, got {', '.join(map(str, values))}"
            )
    out = Path(out_dir)
    configs = {
        (spec, seed): build_config({**settings, **parse_spec(spec), "seed": seed})
        for spec in specs
        for seed in seeds
    }
    runs: dict[tuple[str, int], tuple[RunSummary, dict[str, Any]]] = {}
    for (spec, seed), config in configs.items():
        name = f"{spec}-seed{seed}-{config.fingerprint()}"
        placed = build_config({**config.flat(), "out_dir": str(out / "runs" / name)})
        summary = run_training(placed, resume=True, progress=progress)
        if summary.stopped != "finished":
            return Comparison([], dict(settings), list(seeds), interrupted=summary.stopped)
        loaded = load_run(summary.out_dir, device=config.device)
        extra = {
            "connection_parameters_per_sublayer": connection_parameters(loaded.model),
            **(measure(loaded) if measure is not None else {}),
        }
        runs[spec, seed] = (summary, extra)
        if on_run is not None:
            on_run(spec, seed, summary)
    rows = [
        _row(spec, [runs[spec, s] for s in seeds], [runs[specs[0], s] for s in seeds])
        for spec in specs
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{column: row.get(column) for column in columns} for row in rows]
    comparison = Comparison(rows, dict(settings), list(seeds))
    write_comparison(comparison, out)
    return comparison


def connection_parameters(model: GPT) -> int:
    """Parameters of the connections per sublayer, expansion and reduction not counted."""
    total = sum(
        parameter.numel()
        for module in model.sites.modules()
        if isinstance(module, FullPrecisionModule)
        for parameter in module.parameters(recurse=False)
    )
    return total // len(model.site_names)


def _row(
    spec: str,
    runs: list[tuple[RunSummary, dict[str, Any]]],
    first: list[tuple[RunSummary, dict[str, Any]]],
) -> dict[str, Any]:
    losses = [_loss(summary) for summary, _ in runs]
    differences = [a - _loss(b) for a, (b, _) in zip(losses, first, strict=True)]
    row: dict[str, Any] = {
        "connection": spec,
        "seeds": len(runs),
        "loss_mean": statistics.mean(losses),
        "loss_spread": _spread(losses),
        "difference_mean": statistics.mean(differences),
        "difference_spread": _spread(differences),
        "parameters": runs[0][0].n_parameters,
        "ms_per_step": statistics.median(s.ms_per_step_median or 0.0 for s, _ in runs),
    }
    for name in dict.fromkeys(name for _, extra in runs for name in extra):
        row[name] = statistics.mean(extra[name] for _, extra in runs)
    row["connection_parameters_per_sublayer"] = runs[0][1]["connection_parameters_per_sublayer"]
    row["losses"] = losses
    row["run_dirs"] = [summary.out_dir for summary, _ in runs]
    return row


def _loss(summary: RunSummary) -> float:
    assert summary.final_eval_loss is not None  # every finished run ends with an evaluation
    return summary.final_eval_loss


def _spread(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def write_comparison(comparison: Comparison, out: Path) -> None:
    """``compare.json`` (all), ``compare.csv`` (all columns but lists) and ``compare.md``."""
    record = {
        "seeds": comparison.seeds,
        "settings": comparison.settings,
        "environment": describe_environment(),
        "rows": comparison.rows,
    }
    write_text(out / "compare.json", json.dumps(record, indent=1) + "\n")
    columns = [k for k in comparison.rows[0] if not isinstance(comparison.rows[0][k], list)]
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(comparison.rows)
    write_text(out / "compare.csv", table.getvalue())
    write_text(out / "compare.md", format_table(comparison.rows, markdown=True))


HEADINGS = {
    "connection": "connection",
    "seeds": "seeds",
    "loss_mean": "loss",
    "loss_spread": "± seeds",
    "difference_mean": "minus first",
    "difference_spread": "± paired",
    "parameters": "parameters",
    "connection_parameters_per_sublayer": "per sublayer",
    "ms_per_step": "ms/step",
    "read_effective_streams": "N_eff read",
    "write_effective_streams": "N_eff write",
    "off_diagonal_mass": "off-diagonal",
}
_DIGITS = {
    **dict.fromkeys(("loss_mean", "loss_spread", "difference_mean", "difference_spread"), 4),
    "ms_per_step": 0,
    "off_diagonal_mass": 3,
}
INITIAL = "_initial"
"""Ends the name of the value that a column has before training; the table shows it in brackets."""


def format_table(rows: Sequence[Mapping[str, Any]], *, markdown: bool = False) -> str:
    """The rows as an aligned text table or in Markdown; columns beyond the known ones come last."""
    others = [
        name
        for name, value in rows[0].items()
        if name not in HEADINGS and not isinstance(value, list) and not name.endswith(INITIAL)
    ]
    columns = [*(k for k in HEADINGS if k in rows[0]), *others]
    header = [HEADINGS.get(column, column.replace("_", " ")) for column in columns]
    cells = [[_with_initial(column, row) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [_line(header, widths, markdown), *(_line(row, widths, markdown) for row in cells)]
    if markdown:
        rule = [
            "-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)
        ]
        lines.insert(1, _line(rule, widths, markdown))
    return "\n".join(lines) + "\n"


def _with_initial(column: str, row: Mapping[str, Any]) -> str:
    text, initial = _cell(column, row[column]), row.get(column + INITIAL)
    return text if initial is None else f"{text} ({_cell(column, initial)})"


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{_DIGITS.get(column, 2)}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Sequence[str], widths: Sequence[int], markdown: bool) -> str:
    padded = [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()
