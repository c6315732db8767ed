"""The crosscoders of a folder as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..diagnostics.crosscoder import (
    CrosscoderConfig,
    load_crosscoder,
    load_latents,
    shared_fraction,
)
from ..train import RunError
from .crosscoder import RESULT, JobResult
from .crosscoder_jobs import Job

HEADINGS = ("crosscoder", "EV", "loss rec.", "L0", "alive", "max share", "N_eff", ">=0.5", "else")
NOTES = """\
EV: explained variance in the coder's units. loss rec.: loss recovered with the reconstruction in
place of the streams (mean streams 0, clean streams 1). max share: mean over alive features of the
largest stream share of decoder norm (uniform: {uniform}). N_eff: effective streams of a feature.
>=0.5: features with at least half their norm in one stream. else: median over features of how much
of their own direction another stream holds when they fire (latent scaling; 1: as much).
Shares mean something only where they part from 'shuffled', 'identical' and 'random_weights', and
under norm 'site'."""


def read_results(folder: Path) -> list[JobResult]:
    """All finished jobs of a crosscoder folder or of the run that it belongs to."""
    if (folder / "crosscoder").is_dir():
        folder = folder / "crosscoder"
    paths = sorted(folder.glob(f"*/{RESULT}"))
    if not paths:
        raise RunError(
            f"{folder}: no crosscoder found; hyperstreams crosscoder train --run DIR makes them"
        )
    results = []
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = dict(record["job"])
        config = CrosscoderConfig.from_flat(settings.pop("config"))
        job = Job(config, tuple(settings.pop("layers")), **settings)
        results.append(JobResult(path.parent, job, record))
    return results


def stability(results: Sequence[JobResult]) -> list[str]:
    """A line for every coder that was trained again with another ``--seed``."""
    lines = []
    for index, first in enumerate(results):
        for second in results[index + 1 :]:
            config = replace(second.job.config, seed=first.job.config.seed)
            if replace(second.job, config=config) != first.job:
                continue
            for name in first.coders:
                fraction = shared_fraction(*(_alive(result, name) for result in (first, second)))
                lines.append(
                    f"{fraction:.0%} of the alive features of {first.name}/{name} and "
                    f"{second.name} match one to one with a cosine above 0.9"
                )
    return lines


def _alive(result: JobResult, name: str) -> Tensor:
    coder, _ = load_crosscoder(result.folder / name)
    return coder.decoder[load_latents(result.folder / name)["density"] > 0]


def table(results: Sequence[JobResult]) -> str:
    """One line per coder, aligned, with what the columns mean below."""
    lines = [HEADINGS]
    for result in results:
        splice = result.record["splice"]
        recovered = f"{splice['recovered']:.3f}" if splice else "-"
        for name, coder in result.coders.items():
            several = len(result.coders) > 1
            lines.append(
                (
                    f"{result.name}/{name}" if several else result.name,
                    f"{coder['explained_variance_total']:.3f}",
                    recovered,
                    f"{coder['l0']:.1f}",
                    str(coder["alive"]),
                    f"{coder['mean_max_share']:.3f}",
                    f"{coder['mean_effective_streams']:.2f}",
                    f"{coder['assigned']['0.5']:.0%}",
                    f"{coder['latent_scaling_median']:.2f}",
                )
            )
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    rows = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    n_streams = len(next(iter(results[0].coders.values()))["mean_share"])
    return "\n".join([*rows, *stability(results), "", NOTES.format(uniform=f"{1 / n_streams:.3f}")])
