"""The four kinds of collapse of finished runs, side by side: rows and a section of the report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..diagnostics.metrics.collapse import QUESTIONS, Collapse, collapse_report, collapse_rows
from ..train import RunError
from . import html
from .records import Row
from .runs import CapturedRun

COLUMNS = (
    "run",
    "connection",
    "seed",
    "kind",
    "measure",
    "value",
    "initial",
    "null",
    "null_meaning",
    "collapsed",
    "definition",
)
"""Columns of ``collapse.csv``."""


def reports_of(runs: Sequence[CapturedRun]) -> dict[str, dict[str, Collapse]]:
    """``collapse_report`` of each run by label; runs whose sites cannot be traced are left out."""
    found = {}
    for run in runs:
        if not run.has_streams:
            continue
        try:
            found[run.label] = collapse_report(run.trained_trace, initial=run.initial_trace)
        except RunError:
            # AltUp and other connections whose sites have no read, mix and write of this form.
            continue
    return found


def csv_rows(runs: Sequence[CapturedRun], reports: dict[str, dict[str, Collapse]]) -> list[Row]:
    """One row per run and measure, with the columns of :data:`COLUMNS`."""
    return [
        {"run": run.label, "connection": run.connection, "seed": run.seed, **row}
        for run in runs
        if run.label in reports
        for row in collapse_rows(reports[run.label])
    ]


def _words(measure: str) -> str:
    return measure.replace("_token", ", per token").replace("_", " ")


def section(reports: dict[str, dict[str, Collapse]]) -> str:
    """A table per kind: measures down, runs across, initial values in small print."""
    head = "".join(f"<th>{escape(label)}</th>" for label in reports)
    parts = [
        html.paragraph(
            "Four failures are called collapse, and each is invisible to the measures of the "
            "others, so there is no score. Large numbers: trained; small print: before training. "
            "Null: what chance or a plain network gives. Traced on a few validation windows."
        )
    ]
    for kind, question in QUESTIONS.items():
        entries = [report[kind] for report in reports.values()]
        body = ""
        for name, reference in entries[0].measures.items():
            null = "–" if reference.null is None else f"{reference.null:.3g}"
            if reference.null_meaning:
                null += f"<small>{escape(reference.null_meaning)}</small>"
            cells = "".join(
                f"<td>{m.value:.3f}<small>initial {m.initial:.3f}</small></td>"
                for m in (entry.measures[name] for entry in entries)
            )
            body += (
                f'<tr><th title="{escape(reference.definition)}">'
                f"{escape(_words(name))}</th>{cells}<td>{null}</td>"
                f"<td>{reference.collapsed:g}</td></tr>"
            )
        parts.append(
            f"<h3>{escape(kind.capitalize())}: {escape(question)}</h3>"
            f'<div class="scroll"><table><thead><tr><th>measure</th>{head}<th>null</th>'
            f"<th>fully collapsed</th></tr></thead><tbody>{body}</tbody></table></div>"
        )
    definitions = {
        _words(name): measured.definition
        for entry in next(iter(reports.values())).values()
        for name, measured in entry.measures.items()
    }
    parts.append(
        "<details><summary>Definitions</summary>"
        + html.definition_list(definitions)
        + "</details>"
        + html.paragraph(
            "Cut rank is what passes from earlier to later sites, and still observational: what a "
            "stream causes is measured by taking it away (figure interventions).",
            kind="note",
        )
    )
    return html.section("collapse", "Four kinds of collapse", *parts)
