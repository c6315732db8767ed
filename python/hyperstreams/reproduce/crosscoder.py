"""Crosscoders of a finished run: train what a job says, measure it, keep it in the run's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import metrics, trace
from ..diagnostics.crosscoder import (
    Crosscoder,
    Quality,
    activation_batches,
    activation_mass,
    assignment_sweep,
    decoder_cosine,
    evaluate,
    export_saelens,
    latent_scaling,
    layer_stream_share,
    leading_stream_counts,
    ledger_profile,
    load_latents,
    read_states,
    reconstruct,
    replicate_streams,
    save_crosscoder,
    shuffle_streams,
    splice_losses,
    stream_share,
    strongest_elsewhere,
    train_crosscoder,
)
from ..train.atomic import write_json
from ..train.data import derive_seed
from ..train.environment import describe_environment
from ..train.trainer import build_model
from .crosscoder_jobs import CONTROLS, Job
from .measurements import Measurement
from .runs import CapturedRun

RESULT = "result.json"
CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class JobResult:
    """A finished job: ``result.json`` and, per coder, the numbers of its latents."""

    folder: Path
    job: Job
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's: the job's name and its identity."""
        return self.folder.name

    @property
    def coders(self) -> dict[str, dict[str, Any]]:
        """Records of the coders by name, in order."""
        return dict(self.record["coders"])

    def latents(self, name: str) -> Tensor:
        """A number of every alive latent of all coders: ``[alive, ...]``."""
        parts = []
        for coder in self.coders:
            stored = load_latents(self.folder / coder)
            parts.append(stored[name][stored["density"] > 0])
        return torch.cat(parts)


class _Activations:
    """The states that a job trains on: which model, which windows, which control."""

    def __init__(self, run: CapturedRun, job: Job) -> None:
        random = job.control == "random_weights"
        self.model = build_model(run.loaded.config).eval() if random else run.loaded.model
        self.run, self.job, self.sites = run, job, job.sites(run)

    def generator(self, purpose: str) -> torch.Generator:
        seed = derive_seed(self.job.config.seed, "crosscoder", purpose)
        return torch.Generator().manual_seed(seed)

    def transform(self, purpose: str) -> Callable[[Tensor], Tensor]:
        n = self.sites.n_streams
        if self.job.control == "shuffled":
            return partial(shuffle_streams, n_streams=n, generator=self.generator(purpose))
        if self.job.control == "identical":
            return partial(replicate_streams, n_streams=n)
        return lambda a: a

    def windows(self, purpose: str) -> Iterator[Tensor]:
        """Training windows without end; a purpose has its own."""
        seed = derive_seed(self.job.config.seed, "crosscoder", purpose)
        step = 0
        while True:
            yield self.run.data.train_batch(step, self.job.windows, seed=seed)[0]
            step += 1

    def calibration(self) -> Tensor:
        change = self.transform("calibration transform")
        windows = self.windows("calibration")
        return torch.cat(
            [
                change(read_states(self.model, next(windows), self.sites))
                for _ in range(CALIBRATION_BATCHES)
            ]
        )

    def training(self) -> Iterator[Tensor]:
        return activation_batches(
            self.model,
            self.windows("training"),
            self.sites,
            batch_size=self.job.config.batch_size,
            buffer_batches=self.job.buffer_batches,
            generator=self.generator("shuffle"),
            transform=self.transform("training transform"),
        )

    def held_out(self) -> Iterator[Tensor]:
        """Validation windows, the same for every job."""
        change = self.transform("held-out transform")
        for tokens, _ in self.run.data.eval_batches(self.job.windows, self.job.eval_windows):
            yield change(read_states(self.model, tokens, self.sites))


def kept_in(run: CapturedRun) -> Path:
    """Where the coders of a run are kept."""
    return run.path / "crosscoder"


def job_measurement(run: CapturedRun, job: Job) -> Measurement:
    """A job as a measurement that figures and claims wait for."""
    path = kept_in(run) / job.folder_name(run) / RESULT
    return Measurement(
        kind="crosscoder",
        label=f"{run.label}: crosscoder {job.name}",
        path=path,
        finished=path.is_file(),
        make=partial(run_job, run, job, kept_in(run)),
    )


def run_job(
    run: CapturedRun,
    job: Job,
    out: Path,
    *,
    on_record: Callable[[str, dict[str, Any]], None] | None = None,
) -> JobResult:
    """Train and measure a job in ``out / job.folder_name(run)``, or read it back if it is there.

    Results whose settings, weights or text differ lie beside each other. Training that was
    interrupted continues from its last state, at most ``config.checkpoint_every`` steps back.
    """
    folder = out / job.folder_name(run)
    path = folder / RESULT
    identity = job.identity(run)
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["identity"] == identity:
            return JobResult(folder, job, record)
    source = _Activations(run, job)
    sites = source.sites
    scratch = folder / f".training-{identity}"
    calibration = source.calibration()
    trained: dict[str, tuple[Crosscoder, list[int]]] = {}
    records: dict[str, Any] = {}
    for name, group in sites.groups(job.variant).items():
        coder, history = train_crosscoder(
            job.config,
            (batch[:, group] for batch in source.training()),
            calibration=calibration[:, group],
            generator=source.generator(f"start {name}"),
            folder=scratch / name,
            on_record=partial(on_record, name) if on_record is not None else None,
        )
        quality = evaluate(coder, (batch[:, group] for batch in source.held_out()))
        streams = sites.shape_of(job.variant)[1]
        record, latents = measure(coder, quality, streams)
        record |= {"sites": [sites.names[i] for i in group], "history": history}
        save_crosscoder(folder / name, coder, record, latents=latents)
        if coder.n_sites == 1:
            metadata = {"hook_name": record["sites"][0], "model_name": run.label}
            export_saelens(coder, folder / name / "saelens", metadata=metadata)
        trained[name], records[name] = (coder, group), record
    splice, ledger = None, None
    if job.control == "none":
        ledger = _ledger_shares(source, trained)
        splice = splice_losses(
            source.model,
            run.data.eval_batches(job.windows, job.splice_windows),
            sites,
            partial(reconstruct, trained),
            calibration.mean(dim=0),
        )
    result = {
        "identity": identity,
        "name": folder.name,
        "job": job.flat(),
        "control": CONTROLS[job.control],
        "layers": [f"state after block {layer}" for layer in sites.layers],
        "position_0": "left out of training and of every number",
        "held_out": "validation windows at even distances",
        "shares": "of decoder norms in the coder's units; _raw: in the model's",
        "coders": records,
        "splice": splice,
        "ledger": ledger,
        "run": run.record(),
        "environment": describe_environment(),
    }
    write_json(path, result)
    shutil.rmtree(scratch, ignore_errors=True)
    return JobResult(folder, job, result)


def _ledger_shares(
    source: _Activations, coders: dict[str, tuple[Crosscoder, list[int]]]
) -> dict[str, Any]:
    """Shares of streams that the ledger of writes predicts for features of every writer.

    Every contribution is scaled as the coder scales its site. ``mean_max_share`` weighs the writers
    by the size of what they have in these states.
    """
    sites = source.sites
    tokens, _ = next(iter(source.run.data.eval_batches(source.job.windows, source.job.windows)))
    traced = trace(source.model, tokens)
    profile = ledger_profile(traced, [2 * (layer + 1) for layer in sites.layers]).cpu()
    scale = torch.empty(sites.count)
    for coder, group in coders.values():
        scale[group] = coder.scale.cpu()
    profile = profile * scale.view(len(sites.layers), sites.n_streams)
    size = profile.sum(dim=(1, 2))
    kept = size > 0
    shares = stream_share(profile[kept])
    writers = ["embedding", *traced.site_names]
    largest = shares.amax(dim=-1)
    return {
        "definition": "sum_l mean_t |C[l][s, j]| |y_j|, as a share over streams s (D11)",
        "writers": [name for name, keep in zip(writers, kept.tolist(), strict=True) if keep],
        "share": shares.tolist(),
        "max_share": largest.tolist(),
        "mean_max_share": float((largest * size[kept]).sum() / size[kept].sum()),
    }


def measure(
    coder: Crosscoder, quality: Quality, n_streams: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Summary (JSON values) of a coder's quality and shares, and the numbers of its latents."""
    alive = quality.alive
    norms, raw = (
        coder.decoder_norms(raw=raw).cpu().double().unflatten(1, (-1, n_streams))
        for raw in (False, True)
    )
    pi = stream_share(norms)
    elsewhere = strongest_elsewhere(
        latent_scaling(coder.decoder.cpu(), quality.moment, quality.square_latent, n_streams)
    )
    mass = activation_mass(quality.mean_latent, norms).sum(dim=-1)
    latents = {
        "density": quality.density,
        "mean_latent": quality.mean_latent,
        "share": pi,
        "share_raw": stream_share(raw),
        "layer_share": layer_stream_share(norms),
        "elsewhere": elsewhere,
    }
    kept = pi[alive]
    summary = quality.summary() | {
        "mean_share": kept.mean(dim=0).tolist(),
        "mean_max_share": float(kept.amax(dim=-1).mean()),
        "mean_max_share_raw": float(latents["share_raw"][alive].amax(dim=-1).mean()),
        "mean_effective_streams": float(metrics.effective_streams(kept).mean()),
        "assigned": {str(t): part for t, part in assignment_sweep(kept).items()},
        "leading_stream_counts": leading_stream_counts(norms[alive]).tolist(),
        "leading_stream_mass": leading_stream_counts(norms[alive], mass[alive]).tolist(),
        "latent_scaling_median": float(elsewhere[alive].nanmedian()),
        "latent_scaling_above_half": float((elsewhere[alive] > 0.5).double().mean()),
        "decoder_cosine": decoder_cosine(coder.decoder.cpu(), alive).tolist(),
        "scale": coder.scale.tolist(),
        "threshold": float(coder.threshold),
    }
    return summary, latents
