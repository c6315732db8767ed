"""One self-contained HTML report of a set of runs: verdicts, table, figures, environment."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import four_kinds, html
from .conclusions import group_by_model, model_verdicts, run_verdicts
from .figures import FIGURES, save_figure
from .records import write_csv
from .runs import CAPTURE_BATCH_SIZE, CAPTURE_BATCHES, CapturedRun, open_runs
from .spec import FigureSpec
from .table import COLUMNS, comparison_table
from .verdicts import Verdict

TITLE = "Streams of a small language model, before and after training"
FIGURE_ORDER = ("fig1", "fig2", "fig3", "fig4")


def write_report(
    run_dirs: Sequence[str | Path], out: str | Path, *, command: Sequence[str] = ()
) -> Path:
    """Make every figure, table and verdict of finished runs and ``out/report.html``; its path.

    Beside it: ``figures/`` (PNG, PDF, CSV, JSON of each), ``comparison.csv``, ``collapse.csv`` and
    ``verdicts.json``.
    The page itself holds all of them and refers to nothing outside.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    runs = open_runs(run_dirs)
    streams = [run for run in runs if run.has_streams]
    table = comparison_table(runs)
    write_csv(out / "comparison.csv", table, list(table[0]))
    kinds = four_kinds.reports_of(runs)
    write_csv(out / "collapse.csv", four_kinds.csv_rows(runs, kinds), four_kinds.COLUMNS)
    checkpoints, models = run_verdicts(runs), model_verdicts(runs)
    (out / "verdicts.json").write_text(
        json.dumps([dataclasses.asdict(v) for v in [*checkpoints, *models]], indent=2) + "\n",
        encoding="utf-8",
    )
    plates = {"loss": _plate(FIGURES["loss"], runs, out)}
    if streams:
        plates |= {name: _plate(FIGURES[name], streams, out) for name in FIGURE_ORDER}
    path = out / "report.html"
    collapse = four_kinds.section(kinds) if kinds else ""
    document = _document(runs, table, checkpoints, models, collapse, plates, command)
    path.write_text(document, encoding="utf-8")
    return path


def _plate(spec: FigureSpec, runs: Sequence[CapturedRun], out: Path) -> str:
    paths = save_figure(spec, runs, out / "figures")
    by_suffix = {path.suffix[1:]: path for path in paths}
    definitions = html.definition_list({**spec.definitions, "source": spec.source})
    return (
        html.plate(spec.name, spec.title, spec.caption(runs), by_suffix)
        + f"<details><summary>Definitions</summary>{definitions}</details>"
    )


def _document(
    runs: Sequence[CapturedRun],
    table: Sequence[Mapping[str, Any]],
    checkpoints: Sequence[Verdict],
    models: Sequence[Verdict],
    collapse: str,
    plates: Mapping[str, str],
    command: Sequence[str],
) -> str:
    titles = {"findings": "What came out", "table": "Comparison"}
    titles |= {"collapse": "Four kinds of collapse"} if collapse else {}
    titles |= {"loss-curves": "Loss curves"}
    numbers = {
        name: f"Figure {name[3:]}. {FIGURES[name].title}" for name in plates if name != "loss"
    }
    links = {**titles, **{name: f"Figure {name[3:]}" for name in numbers}, "method": "Method"}
    nav = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in links.items())
    head = "\n".join(
        [
            f"<h1>{TITLE}</h1>",
            html.paragraph(_lead(runs), kind="lead"),
            html.chips(_settings(runs)),
            f"<nav>{nav}</nav>",
        ]
    )
    body = [
        _findings(runs, checkpoints, models),
        html.section(
            "table",
            titles["table"],
            html.comparison(table),
            html.paragraph(
                "; ".join(f"{column.title}: {column.meaning}" for column in COLUMNS)
                + ". Small print: the same number before the first training step.",
                kind="note",
            ),
        ),
        collapse,
        html.section("loss-curves", titles["loss-curves"], plates["loss"]),
        *(html.section(f"section-{name}", numbers[name], plates[name]) for name in numbers),
        _method(runs, command),
    ]
    return html.page(TITLE, head, "\n".join(body))


def _lead(runs: Sequence[CapturedRun]) -> str:
    names = list(group_by_model(runs))
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    return (
        f"Small models that differ in how their sublayers are connected ({listed}), trained on "
        "the same text in the same order. The figures follow Analyzing Stream "
        "Collapse in Hyper-Connections (arXiv 2606.03483) at small scale. Every number is shown "
        "beside its value before training, because much of what looks like collapse is there at "
        "initialisation."
    )


def _settings(runs: Sequence[CapturedRun]) -> list[str]:
    config = runs[0].loaded.config
    model = config.model
    tokens = config.batch_size * config.accumulation * model.block_size
    seeds = sorted({run.seed for run in runs})
    threads = runs[0].environment["threads"]
    return [
        f"{model.n_layer} blocks, width {model.width}, {model.n_streams} streams",
        f"{config.steps:,} steps of {tokens:,} tokens",
        f"peak learning rate {config.lr:g}",
        f"data: {config.dataset}, {runs[0].loaded.tokenizer.name} tokens",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        f"{runs[0].environment['cpu']}, {threads} thread{'s' if threads != 1 else ''}",
    ]


def _findings(
    runs: Sequence[CapturedRun], checkpoints: Sequence[Verdict], models: Sequence[Verdict]
) -> str:
    count = max(len(group) for group in group_by_model(runs).values())
    parts = []
    if checkpoints:
        labels = list(dict.fromkeys(verdict.about for verdict in checkpoints))
        evidence = "".join(
            f"<h3>{html.escaped(label)}</h3>"
            + html.verdict_list([v for v in checkpoints if v.about == label])
            for label in labels
        )
        parts += [
            html.paragraph(
                "About each checkpoint: true or not by a rule that is given with the evidence, "
                "with standard errors over held-out batches. Another seed may give another answer."
            ),
            html.verdict_matrix(checkpoints),
            f"<details><summary>Evidence and rules</summary>{evidence}</details>",
        ]
    if models:
        text = (
            "Between models: one seed each. The spread between seeds is unknown, so every "
            "difference is inconclusive, whatever its size."
            if count == 1
            else f"Between models: up to {count} seeds each, paired by seed (same data order)."
        )
        parts += [html.paragraph(text), html.verdict_list(models)]
    return html.section("findings", "What came out", *parts)


def _plain(value: Any) -> str:
    """A recorded value in words: nested records as ``key value`` pairs."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return "unknown" if value is None else str(value)


def _method(runs: Sequence[CapturedRun], command: Sequence[str]) -> str:
    first = runs[0]
    tokens = next((run.trained.tokens for run in runs if run.has_streams), 0)
    text = [
        f"Diagnostics: the trained module itself ran over {CAPTURE_BATCHES} batches of "
        f"{CAPTURE_BATCH_SIZE} validation windows ({tokens:,} tokens per model), returning sums of "
        "its own coefficients and states in float64. Reference values: the same config built anew "
        "from the same seed, on the same batches.",
        "Losses: fixed validation windows at even distances, equal for all models. Models with one "
        "seed share initial branch weights, embeddings, designated streams and data order.",
        "Not here: the sizes, data and budgets of the paper; several seeds unless stated; any test "
        "of what a stream causes. A stream that is read little may still matter, and one that is "
        "read much may be replaceable.",
    ]
    record = first.environment
    environment = {
        key.replace("_", " "): _plain(value)
        for key, value in record.items()
        if key not in ("resumed", "command")
    }
    data = first.loaded.data_record
    environment["data"] = f"{data.get('source')}, sha256 {first.data_sha256}"
    checkpoints = {
        run.label: f"step {run.loaded.step}, seed {run.seed}, sha256 {run.checkpoint_sha256}"
        for run in runs
    }
    parts = [html.paragraph(line) for line in text]
    if command:
        parts.append(html.code(shlex.join(command)))
    parts += ["<h3>Checkpoints</h3>", html.facts(checkpoints)]
    parts += ["<h3>Environment</h3>", html.facts(environment)]
    return html.section("method", "Method and environment", *parts)
