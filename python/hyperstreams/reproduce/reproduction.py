"""``hyperstreams reproduce``: every figure at a scale, the claims, and one page with all of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..train import RunError, TrainConfig
from . import html, style
from .cache import RunCache, unique
from .claims import MIN_SEEDS, Claim
from .claims_report import (
    COLUMNS,
    PLAIN,
    claim_rows,
    claims_json,
    claims_table,
    feature_measurements,
    feature_shares,
    judge_claims,
    overall,
)
from .cost import cost_table, estimate
from .figures import FIGURES, get_figure, save_figure
from .labels import config_labels, describe
from .measurements import make_missing
from .plans import claims as claims_plan
from .records import write_csv
from .runs import open_runs
from .scales import Scale
from .spec import FigureSpec

TITLE = "Stream collapse in Hyper-Connections, reproduced at scale {}"
LIMITS = (
    "A verdict is about the models, text and budget of this page and nothing else. The "
    "thresholds are constants of the package, fixed before any run; a claim needs the 95 % "
    "interval over seeds beyond its threshold, and every statistic stands beside its value before "
    "training and its null, because much of what looks like collapse is there at initialisation. "
    "Usage, averaging, redundancy and causal collapse are different things; no number here sums "
    "them up."
)


@dataclass(frozen=True)
class Reproduction:
    """What was made: the page, the claims, and the figures' files by name."""

    report: Path
    claims: tuple[Claim, ...]
    figures: dict[str, list[Path]]


def describe_scale(scale: Scale) -> str:
    """Model and budget in words, as every verdict states them."""
    config = scale.config()
    model = config.model
    tokens = config.steps * config.batch_size * config.accumulation * model.block_size
    return (
        f"{scale.name}: mHC-lite, {model.n_layer} blocks, width {model.width}, n = "
        f"{model.n_streams}, {tokens:,} tokens a run"
    )


def wanted_runs(scale: Scale, figures: Sequence[str]) -> list[TrainConfig]:
    """Settings of all runs behind the claims and the named figures, each once."""
    plans = [get_figure(name).plan(scale) for name in figures]
    return unique([config for plan in (claims_plan(scale), *plans) for config in plan])


def reproduce(
    scale: Scale,
    out: str | Path,
    *,
    cache: RunCache | None = None,
    figures: Sequence[str] | None = None,
    quiet: bool = False,
    command: Sequence[str] = (),
) -> Reproduction:
    """Find or train every run, draw every figure, judge the claims, write ``out/report.html``.

    Beside the page: ``figures/`` (PNG, PDF, CSV, JSON of each), ``claims.csv``, ``claims.json``.
    ``figures`` names some instead of all. Raises :class:`InterruptedError` after a signal; the same
    call continues.
    """
    style.require_matplotlib()
    cache = cache or RunCache()
    specs = [get_figure(name) for name in (FIGURES if figures is None else figures)]
    configs = wanted_runs(scale, [spec.name for spec in specs])
    placed = [cache.place(config) for config in configs]
    if not scale.trains and cache.missing(configs):
        raise RunError(f"scale {scale.name}: runs are missing and are not trained here")
    plan = estimate(scale, placed, cache.missing(configs))
    if not quiet:
        names = ", ".join(spec.name for spec in specs)
        print(f"reproduce: claims K1 to K6 and {names}; {plan}", flush=True)
    cache.train(configs, quiet=quiet)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    device = str(scale.settings.get("device", "cpu"))
    claimed = open_runs(cache.folders(claims_plan(scale)), device=device)
    # Coders are the dearest part: for as many seeds as decide, and not where figure 5 is left out.
    plain = [run for run in claimed if describe(run.settings) == PLAIN][:MIN_SEEDS]
    plain = plain if any(spec.name == "fig5" for spec in specs) else []
    slow = [
        measurement
        for spec in specs
        for measurement in spec.measurements(
            open_runs(cache.folders(spec.plan(scale)), device=device)
        )
    ]
    make_missing([*slow, *feature_measurements(plain)], quiet=quiet)
    made: dict[str, list[Path]] = {}
    plates: dict[str, str] = {}
    for spec in specs:
        runs = open_runs(cache.folders(spec.plan(scale)), device=device)
        made[spec.name] = save_figure(spec, runs, out / "figures")
        plates[spec.name] = _plate(spec, spec.caption(runs), made[spec.name])
        if not quiet:
            print(f"{spec.name}: {made[spec.name][0]}", flush=True)
    judged = judge_claims(claimed, *feature_shares(plain))
    where = describe_scale(scale)
    write_csv(out / "claims.csv", claim_rows(judged), COLUMNS)
    record = json.dumps(claims_json(judged, where), indent=2)
    (out / "claims.json").write_text(record + "\n", encoding="utf-8")
    costs = cost_table(scale, configs, config_labels(configs))
    page = _page(scale, where, judged, plates, costs, command)
    report = out / "report.html"
    report.write_text(page, encoding="utf-8")
    return Reproduction(report, tuple(judged), made)


def _plate(spec: FigureSpec, caption: str, paths: Sequence[Path]) -> str:
    by_suffix = {path.suffix[1:]: path for path in paths}
    definitions = html.definition_list({**spec.definitions, "source": spec.source})
    return (
        html.plate(spec.name, spec.title, caption, by_suffix)
        + f"<details><summary>Definitions</summary>{definitions}</details>"
    )


def _page(
    scale: Scale,
    where: str,
    judged: Sequence[Claim],
    plates: dict[str, str],
    costs: str,
    command: Sequence[str],
) -> str:
    title = TITLE.format(scale.name)
    titles = {name: f"{name}. {FIGURES[name].title}" for name in plates}
    links = {"claims": "Claims", **{f"section-{name}": name for name in plates}, "method": "Method"}
    nav = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in links.items())
    facts = [
        where,
        f"scale {scale.name}: {scale.about}",
        f"seeds {', '.join(map(str, scale.seeds))}",
    ]
    head = "\n".join(
        [
            f"<h1>{title}</h1>",
            html.paragraph(overall(judged, where), kind="lead"),
            html.chips(facts),
            f"<nav>{nav}</nav>",
        ]
    )
    body = [
        html.section(
            "claims",
            "Claims K1 to K6 at this scale",
            html.paragraph(LIMITS),
            claims_table(judged, where),
        ),
        *(html.section(f"section-{name}", titles[name], plate) for name, plate in plates.items()),
        html.section(
            "method",
            "Method and cost",
            html.paragraph(
                "Claims: mHC-lite with every seed, LSS and a constant scale paired by seed (same "
                "data order). Values before training: the same settings built anew from the same "
                "seed, on the same windows. Intervals: Student's t over seeds, 95 %."
            ),
            html.code(costs),
            html.code(shlex.join(command)) if command else "",
        ),
    ]
    return html.page(title, head, "\n".join(body))
