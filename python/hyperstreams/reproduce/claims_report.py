"""Verdicts on the claims in words, as a table of a page, as CSV and as JSON."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from . import html
from .claim_statistics import (
    SeedCaptures,
    claim_k1,
    claim_k2,
    claim_k3,
    claim_k4,
    claim_k5,
    claim_k6,
)
from .claims import CLAIMS, MIN_SEEDS, THRESHOLDS, Claim, Measure
from .crosscoder import job_measurement, kept_in, run_job
from .crosscoder_jobs import Job, recipe
from .labels import describe
from .measurements import Measurement
from .plans import CONSTANT, LSS
from .runs import CapturedRun

PLAIN, SCALED, CONTROL = (
    describe({"connection": "mhc_lite", "expand": expand})
    for expand in ("replicate", LSS["expand"], CONSTANT["expand"])
)
COLUMNS = (
    *("claim", "statistic", "value", "initial", "null", "low", "high", "seeds"),
    *("verdict_of_measure", "verdict_of_claim", "rule", "definition", "values"),
)


def seed_captures(runs: Sequence[CapturedRun]) -> list[SeedCaptures]:
    """What the claims need of runs of one model."""
    return [
        SeedCaptures(
            run.seed,
            run.trained,
            run.initial,
            run.evaluations[-1]["nats_per_byte"],
            run.evaluations[0]["nats_per_byte"],
        )
        for run in runs
    ]


def feature_jobs(run: CapturedRun) -> dict[str, Job]:
    """The coder of figure 5 with sites normalised, and two controls."""
    main = recipe(run)
    return {
        "trained": main,
        "shuffled": dataclasses.replace(main, control="shuffled"),
        "random": dataclasses.replace(main, control="random_weights"),
    }


def feature_measurements(runs: Sequence[CapturedRun]) -> list[Measurement]:
    """What :func:`feature_shares` reads."""
    return [job_measurement(run, job) for run in runs for job in feature_jobs(run).values()]


def feature_shares(runs: Sequence[CapturedRun]) -> tuple[dict[str, list[float]], str]:
    """Mean largest stream share of each run's crosscoder features, and of two controls.

    Of :func:`feature_jobs`; coders are trained where they are missing. A run of which a coder has
    no live feature is left out: the second value names it, and is empty otherwise.
    """
    left_out = []
    found: dict[str, list[float]] = {"trained": [], "shuffled": [], "random": []}
    for run in runs:
        shares = {}
        for key, job in feature_jobs(run).items():
            coders = run_job(run, job, kept_in(run)).coders.values()
            shares[key] = statistics.mean(coder["mean_max_share"] for coder in coders)
        empty = [key for key, share in shares.items() if not math.isfinite(share)]
        if empty:
            left_out.append(f"seed {run.seed} ({', '.join(empty)})")
            continue
        for key, share in shares.items():
            found[key].append(share)
    reason = f"Left out, no live feature in a coder: {', '.join(left_out)}." if left_out else ""
    return (found if found["trained"] else {}), reason


def judge_claims(
    runs: Sequence[CapturedRun],
    shares: Mapping[str, Sequence[float]] | None = None,
    left_out: str = "",
) -> list[Claim]:
    """All six claims from the runs of ``plans.claims`` and what :func:`feature_shares` gives."""
    models = {
        name: seed_captures([run for run in runs if describe(run.settings) == name])
        for name in (PLAIN, SCALED, CONTROL)
    }
    plain = models[PLAIN]
    return [
        *(make(plain) for make in (claim_k1, claim_k2, claim_k3, claim_k4)),
        claim_k5(shares or {}, left_out),
        claim_k6(plain, models[SCALED], models[CONTROL]),
    ]


def number(value: float) -> str:
    return html.minus(f"{value:.3f}")


def interval_words(measure: Measure) -> str:
    """The interval, or why there is none."""
    if measure.interval is None:
        return "one seed: none"
    low, high = measure.interval
    return f"{number(low)} to {number(high)}"


def verdict_words(claim: Claim, where: str) -> str:
    """The verdict on a claim in a sentence or two; ``where`` names the scale and the model."""
    remark = f" {claim.remark}" if claim.remark else ""
    if not claim.measures:
        return f"Inconclusive: not measured.{remark}"
    if claim.seeds < MIN_SEEDS:
        return (
            f"Inconclusive: {claim.seeds} seed{'s' if claim.seeds != 1 else ''}, at least "
            f"{MIN_SEEDS} are needed to decide anything.{remark}"
        )
    by = {
        outcome: [m.name for m in claim.measures if m.outcome == outcome]
        for outcome in ("supported", "refuted", "inconclusive")
    }
    if claim.outcome == "supported":
        text = f"Supported at this scale ({where})."
    elif claim.outcome == "refuted":
        text = f"Refuted at this scale ({where}) by: {', '.join(by['refuted'])}."
    else:
        text = f"Inconclusive: the interval does not clear the threshold of {_list(by)}."
    start = [m.name for m in claim.measures if m.so_from_the_start]
    if start and claim.outcome != "refuted":
        text += (
            f" The model met the threshold before training ({', '.join(start)}): this describes "
            "it and is no evidence that training leads there."
        )
    return f"{text}{remark}"


def _list(by: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(by["inconclusive"])


def overall(claims: Sequence[Claim], where: str) -> str:
    """The diagnosis as a whole in a sentence, and what held before training already."""
    outcome = {claim.key: claim.outcome for claim in claims}
    core = ("K1", "K2")
    early = [
        claim.key
        for claim in claims
        if claim.key in core
        and claim.outcome == "supported"
        and any(measure.so_from_the_start for measure in claim.measures)
    ]
    caveat = (
        f" {' and '.join(early)} met the threshold before training already: no evidence that "
        "training leads there."
        if early
        else ""
    )
    if all(outcome[key] == "refuted" for key in core):
        refuted = {m.name for claim in claims for m in claim.measures if m.outcome == "refuted"}
        even = all(
            {f"{side} dominance", f"{side} dominance gained"} & refuted
            for side in ("read", "write")
        )
        usage = (
            "streams are used evenly, or no more unevenly than they were initialised to,"
            if even
            else "no one stream persistently dominates both reads and writes,"
        )
        return (
            f"At this scale ({where}) the diagnosis is refuted: {usage} and mixing is substantial "
            "after the first block."
        )
    if all(outcome[key] == "supported" for key in core):
        return (
            f"At this scale ({where}) the diagnosis is supported: mixing stays near the identity "
            f"and one stream dominates beyond initialisation and beyond chance.{caveat}"
        )
    said = ", ".join(f"{key} {outcome[key]}" for key in CLAIMS)
    return (
        f"At this scale ({where}) the diagnosis is neither supported nor refuted whole: {said}."
        f"{caveat}"
    )


def claim_rows(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """A row per measure, for the CSV."""
    result = []
    for claim in claims:
        for measure in claim.measures:
            low, high = measure.interval or (None, None)
            first = measure.initial
            result.append(
                {
                    "claim": claim.key,
                    "statistic": measure.name,
                    "value": measure.value,
                    "initial": sum(first) / len(first) if first else None,
                    "null": measure.null,
                    "low": low,
                    "high": high,
                    "seeds": len(measure.values),
                    "verdict_of_measure": measure.outcome,
                    "verdict_of_claim": claim.outcome,
                    "rule": THRESHOLDS[measure.name].words(),
                    "definition": measure.definition,
                    "values": " ".join(map(repr, measure.values)),
                }
            )
    return result


def claims_json(claims: Sequence[Claim], where: str) -> dict[str, Any]:
    """Claims, measures, thresholds and verdicts."""
    return {
        "scale": where,
        "min_seeds": MIN_SEEDS,
        "aggregation": "mean over seeds, 95 % interval by Student's t",
        "thresholds": {name: dataclasses.asdict(t) for name, t in THRESHOLDS.items()},
        "overall": overall(claims, where),
        "claims": [
            {
                "key": claim.key,
                "claim": claim.text,
                "outcome": claim.outcome,
                "words": verdict_words(claim, where),
                "measures": [
                    {**dataclasses.asdict(m), "interval": m.interval, "outcome": m.outcome}
                    for m in claim.measures
                ],
            }
            for claim in claims
        ],
    }


def claims_table(claims: Sequence[Claim], where: str) -> str:
    """The table of the page: a line per measure, the verdict in words under each claim."""
    head = "".join(
        f"<th>{title}</th>"
        for title in ("statistic", "value", "initial", "null", "95 % interval", "seeds", "verdict")
    )
    body = []
    for claim in claims:
        title = f"{html.escaped(claim.key)}. {html.escaped(claim.text)}"
        words = html.escaped(html.minus(verdict_words(claim, where)))
        body.append(
            f'<tr class="claim"><th colspan="6">{title}<small>{words}</small></th>'
            f"<td>{html.outcome(claim.outcome)}</td></tr>"
        )
        for m in claim.measures:
            initial = number(sum(m.initial) / len(m.initial)) if m.initial else "–"
            null = "–" if m.null is None else f"{number(m.null)}<small>{m.null_words}</small>"
            rule = html.escaped(html.minus(THRESHOLDS[m.name].words()))
            body.append(
                f'<tr><th title="{html.escaped(m.definition)}">{html.escaped(m.name)}'
                f"<small>{rule}</small></th><td>{number(m.value)}</td><td>{initial}</td>"
                f"<td>{null}</td><td>{interval_words(m)}</td><td>{len(m.values)}</td>"
                f"<td>{html.outcome(m.outcome)}</td></tr>"
            )
    return (
        f'<div class="scroll"><table class="claims"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
