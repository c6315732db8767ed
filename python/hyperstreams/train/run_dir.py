"""The files of a run: who may write them, the metrics log, the summary, and reading a run back."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from ..models import GPT
from .atomic import write_json, write_text
from .checkpoint import find_checkpoint, load_state, load_weights
from .config import BOOKKEEPING, TrainConfig, build_config
from .data import TokenData, open_data
from .environment import describe_environment
from .errors import RunError
from .tokenizers import Tokenizer, tokenizer_from
from .trainer import build_model

SUMMARY = "summary.json"


@dataclass(frozen=True)
class RunSummary:
    """What a run came to. ``stopped`` is ``"finished"`` or the signal that ended it early.

    Losses are nats per token on the fixed windows. ``ms_per_step_median`` is the median over the
    records of the log, each a mean over its interval, evaluation and checkpoints not counted.
    """

    out_dir: str
    stopped: str
    steps: int
    final_eval_loss: float | None
    best_eval_loss: float | None
    best_eval_step: int | None
    final_eval_nats_per_byte: float | None
    ms_per_step_median: float | None
    tokens_per_second_median: float | None
    peak_memory_mib: float | None
    n_parameters: int


def open_run_dir(config: TrainConfig, data: TokenData, *, resume: bool) -> Path:
    """Make the run directory, or check that ``resume`` may continue the run that it holds."""
    run_dir = config.run_dir()
    path = run_dir / "config.json"
    if path.exists():
        _check_same_run(run_dir, config, data, resume=resume)
        return run_dir
    if find_checkpoint(run_dir) is not None:
        raise RunError(
            f"{run_dir}: holds a checkpoint but no config.json; choose another --out_dir"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{run_dir}: cannot be made ({error.strerror})") from error
    write_json(run_dir / "data.json", data.meta)
    write_json(run_dir / "environment.json", {**describe_environment(), "resumed": []})
    write_json(path, config.flat())
    return run_dir


def _check_same_run(run_dir: Path, config: TrainConfig, data: TokenData, *, resume: bool) -> None:
    stored = read_json(run_dir / "config.json")
    wanted = json.loads(json.dumps(config.flat()))
    differing = [
        f"{key} = {stored.get(key)!r} there, {wanted.get(key)!r} here"
        for key in sorted(stored.keys() | wanted.keys())
        if key not in BOOKKEEPING and stored.get(key) != wanted.get(key)
    ]
    if differing:
        raise RunError(
            f"{run_dir}: holds a different run ({'; '.join(differing)}); choose another --out_dir"
        )
    if read_json(run_dir / "data.json")["sha256"] != data.sha256:
        raise RunError(
            f"{run_dir}: the text of {config.dataset} is not the one this run began with"
        )
    if not resume:
        raise RunError(
            f"{run_dir}: holds this run already; continue it with --resume, "
            "or choose another --out_dir"
        )
    if not (run_dir / SUMMARY).exists():
        _record_resume(run_dir)


def _record_resume(run_dir: Path) -> None:
    """Add this process to the environment record; say when its arithmetic may differ."""
    began = read_json(run_dir / "environment.json")
    now = describe_environment()
    differing = [
        f"{name} {before!r} at first, {here!r} now"
        for name, before, here in [
            *((name, began[name], now[name]) for name in ("threads", "torch", "cpu_capability")),
            *((n, began["backend"][n], now["backend"][n]) for n in ("backend", "cpu_isa")),
        ]
        if before != here
    ]
    if differing:
        warnings.warn(
            f"{run_dir}: continues in another environment, sums may round differently "
            f"({'; '.join(differing)})",
            stacklevel=4,
        )
    began["resumed"].append(now)
    write_json(run_dir / "environment.json", began)


def read_json(path: Path) -> Any:
    """A JSON file of a run, or a worded error."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, in order of steps.

    Opening it to resume at ``step`` drops later lines and a line cut short by a crash, so that the
    file ends up as if the run had never been interrupted.
    """

    def __init__(self, run_dir: Path, *, step: int | None) -> None:
        self.path = run_dir / "metrics.jsonl"
        kept = [] if step is None else [r for r in read_metrics(run_dir) if r["step"] <= step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file: TextIO = self.path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; a reader sees it at once."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make sure that what was written survives the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(run_dir: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Complete records of a run, all or of one kind: ``"train"``, ``"eval"`` or ``"probe"``."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return [record for record in records if kind is None or record["kind"] == kind]


def summarize(
    run_dir: Path, *, stopped: str, step: int, n_parameters: int, peak_memory_mib: float | None
) -> RunSummary:
    """The summary of a run from its log; written to ``summary.json`` when it is finished."""
    train, evals = read_metrics(run_dir, "train"), read_metrics(run_dir, "eval")
    best = min(evals, key=lambda record: record["loss"]) if evals else None
    summary = RunSummary(
        out_dir=str(run_dir),
        stopped=stopped,
        steps=step,
        final_eval_loss=evals[-1]["loss"] if evals else None,
        best_eval_loss=best["loss"] if best else None,
        best_eval_step=best["step"] if best else None,
        final_eval_nats_per_byte=evals[-1]["nats_per_byte"] if evals else None,
        ms_per_step_median=_median(train, "ms_per_step"),
        tokens_per_second_median=_median(train, "tokens_per_second"),
        peak_memory_mib=peak_memory_mib,
        n_parameters=n_parameters,
    )
    if stopped == "finished":
        write_json(run_dir / SUMMARY, dataclasses.asdict(summary))
    return summary


def _median(records: list[dict[str, Any]], key: str) -> float | None:
    return statistics.median(record[key] for record in records) if records else None


def finished_summary(run_dir: Path) -> RunSummary | None:
    """The summary of a run that has finished, else None."""
    path = run_dir / SUMMARY
    return RunSummary(**{**read_json(path), "out_dir": str(run_dir)}) if path.exists() else None


@dataclass(frozen=True)
class LoadedRun:
    """A trained model, in evaluation mode, with the settings and the data it was trained on."""

    out_dir: Path
    config: TrainConfig
    model: GPT
    step: int
    data_record: dict[str, Any]

    @cached_property
    def data(self) -> TokenData:
        """The run's tokens; an error when the text has changed since."""
        config = self.config
        data = open_data(
            config.dataset,
            tokenizer=config.tokenizer,
            block_size=config.model.block_size,
            val_fraction=config.val_fraction,
        )
        if data.sha256 != self.data_record["sha256"]:
            raise RunError(
                f"{self.out_dir}: the text of {config.dataset} has changed since the run"
            )
        return data

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokeniser, from its own record: no data needed."""
        return tokenizer_from(self.data_record["tokenizer"])


def load_run(out_dir: str | Path, *, device: str = "cpu") -> LoadedRun:
    """Model, settings, data and tokeniser of a run from its newest checkpoint.

    Raises :class:`RunError` when ``out_dir`` holds no run or no checkpoint yet.
    """
    run_dir = Path(out_dir)
    if not (run_dir / "config.json").exists():
        raise RunError(f"{run_dir}: not a run directory (no config.json)")
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is None:
        raise RunError(f"{run_dir}: no checkpoint yet")
    config = build_config({**read_json(checkpoint / "config.json"), "device": device})
    model = build_model(config)
    load_weights(checkpoint, model)
    model.eval()
    return LoadedRun(
        out_dir=run_dir,
        config=config,
        model=model,
        step=load_state(checkpoint)["step"],
        data_record=read_json(run_dir / "data.json"),
    )
