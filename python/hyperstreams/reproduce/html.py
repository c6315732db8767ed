"""The few pieces of HTML that the report is made of; text that comes in is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from .table import COLUMNS, Column
from .verdicts import Verdict

MEDIA_TYPES = {
    ".png": "image/png",
    ".csv": "text/csv",
    ".json": "application/json",
    ".pdf": "application/pdf",
}


def data_uri(path: Path) -> str:
    """A file's content as an address, so that the page needs nothing beside itself."""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{content}"


def page(title: str, head: str, body: str) -> str:
    """A whole document with the style sheet inside."""
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header class="top">\n{head}\n</header>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A titled section."""
    content = "\n".join(parts)
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def escaped(text: str) -> str:
    """Text made safe for a page."""
    return escape(text)


def code(text: str) -> str:
    """A block of literal text."""
    return f"<pre>{escape(text)}</pre>"


def chips(words: Iterable[str]) -> str:
    """A row of short facts."""
    return f'<ul class="chips">{"".join(f"<li>{escape(word)}</li>" for word in words)}</ul>'


def definition_list(items: Mapping[str, str]) -> str:
    """Terms and their definitions."""
    entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items())
    return f"<dl>{entries}</dl>"


def facts(items: Mapping[str, Any]) -> str:
    """A two-column table of facts."""
    rows = "".join(
        f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in items.items()
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    value = row[column.key]
    if value is None:
        return "<td>–</td>"
    text = f"{value:{column.form}}"
    if column.initial:
        text += f"<small>initial {row[f'{column.key}_initial']:{column.form}}</small>"
    return f"<td>{text}</td>"


def comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparison table, initial values in small print under each number."""
    head = "".join(
        f'<th title="{escape(column.meaning)}">{escape(column.title)}</th>' for column in COLUMNS
    )
    body = "".join(
        f"<tr><th>{escape(row['run'])}</th>{''.join(_cell(column, row) for column in COLUMNS)}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr><th>model</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def verdict_matrix(verdicts: Sequence[Verdict]) -> str:
    """One row per claim, one column per checkpoint."""
    columns = list(dict.fromkeys(verdict.about for verdict in verdicts))
    claims = list(dict.fromkeys(verdict.claim for verdict in verdicts))
    outcomes = {(v.claim, v.about): v.outcome for v in verdicts}
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f'<tr><th class="claim">{escape(claim)}</th>'
        + "".join(f"<td>{outcome(outcomes[claim, column])}</td>" for column in columns)
        + "</tr>"
        for claim in claims
    )
    return (
        f'<div class="scroll"><table class="words"><thead><tr><th>claim</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def outcome(word: str) -> str:
    """The word of a verdict with its mark and colour."""
    kind = word.replace(" ", "-")
    marks = {"shown": "●", "supported": "●", "not shown": "○", "refuted": "○"}
    return (
        f'<span class="outcome {kind}">{marks.get(word, "–")}&nbsp;'
        f"{word.replace(' ', '&nbsp;')}</span>"
    )


def verdict_list(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as rows: outcome, claim, evidence."""
    rows = "".join(
        f'<div class="verdict"><p>{outcome(verdict.outcome)}</p><p>{escape(verdict.claim)}.</p>'
        f'<p class="evidence">{escape(minus(verdict.evidence))}</p></div>'
        for verdict in verdicts
    )
    return f'<div class="card">{rows}</div>'


def minus(text: str) -> str:
    """Hyphens before digits as minus signs."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\u2212", text)


def plate(name: str, title: str, caption: str, paths: Mapping[str, Path]) -> str:
    """A figure with its picture and its downloads inside the page."""
    links = " · ".join(
        f'<a download="{path.name}" href="{data_uri(path)}">{suffix.upper()}</a>'
        for suffix, path in paths.items()
        if suffix != "png"
    )
    return (
        f'<figure id="{name}"><div class="plate" tabindex="0">'
        f'<img alt="{escape(title)}" src="{data_uri(paths["png"])}"></div>'
        f"<figcaption>{escape(caption)}</figcaption>"
        f'<p class="note">Numbers and vector graphics: {links}</p></figure>'
    )
