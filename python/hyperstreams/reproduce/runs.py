"""A finished run as the figures see it: captures, trained and at initialisation, and records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..diagnostics import Capture, Trace, capture, trace
from ..models import GPT
from ..train import LoadedRun, RunError, TokenData, load_run, read_metrics
from ..train.checkpoint import find_checkpoint
from ..train.trainer import build_model
from .labels import describe, settings_labels

CAPTURE_BATCHES = 8
CAPTURE_BATCH_SIZE = 16
HISTORY_WINDOWS = HISTORY_BATCH_SIZE = 16
"""What is captured at every checkpoint of a run in training."""
TRACED_TOKENS = 512
"""About how many tokens are traced: every number of every token is kept, for a few windows."""

__all__ = ["CapturedRun", "describe", "history_path", "open_runs", "sha256"]


def history_path(run_dir: Path, step: int) -> Path:
    """Where the capture of a checkpoint in training is kept."""
    return run_dir / "captures" / f"step-{step:08d}.npz"


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class CapturedRun:
    """One run directory, loaded. Captures are made on first use and kept in the run directory."""

    path: Path
    label: str
    loaded: LoadedRun
    checkpoint_sha256: str
    opened: dict[tuple[str, int], TokenData] = field(default_factory=dict, repr=False)
    """Data sets that are open already, shared by the runs that were opened together."""

    @property
    def settings(self) -> dict[str, Any]:
        return self.loaded.config.flat()

    @property
    def connection(self) -> str:
        return self.loaded.config.model.connection

    @property
    def seed(self) -> int:
        return self.loaded.config.seed

    @property
    def has_streams(self) -> bool:
        """False for connections such as the plain residual: neither mixers nor shares."""
        return self.loaded.config.model.has_streams

    @property
    def replicated(self) -> bool:
        """Whether the streams start as copies: then the first site's mixer has no effect."""
        return self.loaded.config.model.expand == "replicate"

    @property
    def data_sha256(self) -> str:
        """Identity of the text; reads the run's own record, not the text."""
        return str(self.loaded.data_record["sha256"])

    @property
    def data(self) -> TokenData:
        """The run's tokens; opened once for all runs on the same text."""
        key = (self.data_sha256, self.loaded.config.model.block_size)
        if key not in self.opened:
            self.opened[key] = self.loaded.data
        return self.opened[key]

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations of the log, step 0 first."""
        return read_metrics(self.path, "eval")

    @cached_property
    def training_records(self) -> list[dict[str, Any]]:
        return read_metrics(self.path, "train")

    @cached_property
    def environment(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "environment.json").read_text(encoding="utf-8")))

    @cached_property
    def trained(self) -> Capture:
        return self._capture("trained")

    @cached_property
    def initial(self) -> Capture:
        """The same config built anew from the same seed, on the same batches."""
        return self._capture("initial")

    @cached_property
    def history(self) -> list[tuple[int, Capture]]:
        """Steps and captures made while the run was trained, step 0 first; empty without any."""
        found = sorted((self.path / "captures").glob("step-*.npz"))
        return [(int(path.stem.removeprefix("step-")), Capture.load(path)) for path in found]

    @cached_property
    def trained_trace(self) -> Trace:
        """Per-token tensors of the trained model on a few validation windows."""
        return self._trace(self.loaded.model)

    @cached_property
    def initial_trace(self) -> Trace:
        """The same of the model before training, on the same windows."""
        return self._trace(build_model(self.loaded.config))

    def _trace(self, model: GPT) -> Trace:
        windows = max(TRACED_TOKENS // self.loaded.config.model.block_size, 1)
        tokens, targets = next(self.data.eval_batches(windows, windows))
        device = next(model.parameters()).device
        try:
            return trace(model, tokens.to(device), targets.to(device))
        except ValueError as error:
            raise RunError(f"{self.path}: {error}") from error

    def _capture(self, phase: str) -> Capture:
        if not self.has_streams:
            raise RunError(f"{self.path}: connection {self.connection!r} has no streams to capture")
        identity = f"{self.checkpoint_sha256}:{self.data_sha256}:{CAPTURE_BATCHES}"
        key = hashlib.sha256(f"{identity}:{CAPTURE_BATCH_SIZE}".encode()).hexdigest()[:12]
        path = self.path / "captures" / f"{phase}-{key}.json"
        if path.exists():
            try:
                return Capture.load(path)
            except ValueError:
                path.unlink()
        model = self.loaded.model if phase == "trained" else build_model(self.loaded.config)
        batches = self.data.eval_batches(CAPTURE_BATCH_SIZE, CAPTURE_BATCHES * CAPTURE_BATCH_SIZE)
        result = capture(
            model,
            batches,
            details={
                "phase": phase,
                "step": self.loaded.step if phase == "trained" else 0,
                "split": "validation, fixed windows at even distances",
                "seed": self.seed,
                "checkpoint_sha256": self.checkpoint_sha256,
                "orientation": "h_res[destination, source]",
            },
        )
        path.parent.mkdir(exist_ok=True)
        result.save(path)
        return result

    def record(self) -> dict[str, Any]:
        """What identifies this run in a figure's JSON."""
        model = self.loaded.model
        return {
            "label": self.label,
            "run_dir": str(self.path),
            "step": self.loaded.step,
            "seed": self.seed,
            "config": self.settings,
            "checkpoint_sha256": self.checkpoint_sha256,
            "data_sha256": self.data_sha256,
            "designated_streams": [
                int(buffer.item())
                for name, buffer in model.named_buffers()
                if name.endswith("designated_stream")
            ],
            "parameters": sum(p.numel() for p in model.parameters()),
            "environment": self.environment,
        }


def open_runs(paths: Sequence[str | Path], *, device: str = "cpu") -> list[CapturedRun]:
    """Load run directories. Labels name the model and what tells runs apart; see ``labels``."""
    loaded = [load_run(path, device=device) for path in paths]
    names = settings_labels([run.config.flat() for run in loaded])
    opened: dict[tuple[str, int], TokenData] = {}
    runs = []
    for name, run in zip(names, loaded, strict=True):
        label = name if names.count(name) == 1 else f"{name} ({run.out_dir.name})"
        checkpoint = find_checkpoint(run.out_dir)
        assert checkpoint is not None  # load_run has just read it
        runs.append(
            CapturedRun(run.out_dir, label, run, sha256(checkpoint / "model.safetensors"), opened)
        )
    return runs
