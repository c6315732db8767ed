"""A whole run: steps, records, evaluations, checkpoints, signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..diagnostics.live.sinks import json_values
from ..models import GPT
from .checkpoint import (
    find_checkpoint,
    load_state,
    load_weights,
    require_safetensors,
    save_checkpoint,
)
from .config import TrainConfig
from .data import derive_seed, open_data
from .environment import peak_memory_mib
from .errors import NonFiniteError, RunError, require
from .run_dir import MetricsLog, RunSummary, finished_summary, open_run_dir, summarize
from .trainer import Trainer, find_device


def run_training(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: bool | str = True,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    on_checkpoint: Callable[[GPT, int], None] | None = None,
) -> RunSummary:
    """Train, log, evaluate and save until ``config.steps``, or until SIGINT or SIGTERM.

    Parameters
    ----------
    resume : continue the run in ``config.run_dir()``. From a checkpoint the continued run has the
        same weights and the same log, bit for bit, as one that was never interrupted (same machine
        and thread count); without one it starts at step 0; a finished run is returned as it is.
    progress : True shows a tqdm bar on a terminal, ``"always"`` shows it anywhere, False never.
    on_record : called with every record that is written to ``metrics.jsonl``.
    on_checkpoint : called with the model and its step where the run begins or continues, and after
        every checkpoint. It may run the model without gradients; it must leave it as it was.

    The run directory holds ``config.json`` (resolved), ``environment.json``, ``data.json`` (source,
    hash and files of the text, tokeniser), ``metrics.jsonl``, ``checkpoint/`` and, at the end,
    ``summary.json``. The first signal ends the run after the current step with a checkpoint and a
    summary whose ``stopped`` names the signal; a second SIGINT interrupts at once.

    Raises :class:`RunError` for settings, data or a directory that do not fit, and
    :class:`NonFiniteError` (step, first module to blame) when loss or gradients stop being finite.
    The caller's random state is left as it was.
    """
    require_safetensors()
    device = find_device(config.device)
    data = open_data(
        config.dataset,
        tokenizer=config.tokenizer,
        block_size=config.model.block_size,
        val_fraction=config.val_fraction,
    )
    data.training_split()  # before anything is written
    config = config.with_vocabulary(data.tokenizer.vocab_size)
    run_dir = open_run_dir(config, data, resume=resume)
    if (done := finished_summary(run_dir)) is not None:
        return done

    with torch.random.fork_rng([device] if device.type == "cuda" else []), _signals() as received:
        torch.manual_seed(derive_seed(config.seed, "dropout"))
        trainer = Trainer(config, data)
        checkpoint = find_checkpoint(run_dir)
        if checkpoint is not None:
            load_weights(checkpoint, trainer.model)
            trainer.load_state(load_state(checkpoint))
        log = MetricsLog(run_dir, step=trainer.step if checkpoint is not None else None)
        try:
            bar = _bar(config, trainer.step, progress)
            with trainer.probe or nullcontext():
                _loop(trainer, run_dir, log, received, bar, on_record, on_checkpoint)
        except NonFiniteError as error:
            log.write({"kind": "nonfinite", "step": error.step, "module": error.module})
            raise
        finally:
            log.close()
    return summarize(
        run_dir,
        stopped="finished" if trainer.step == config.steps else received[0],
        step=trainer.step,
        n_parameters=sum(p.numel() for p in trainer.model.parameters()),
        peak_memory_mib=peak_memory_mib(),
    )


def _loop(
    trainer: Trainer,
    run_dir: Path,
    log: MetricsLog,
    received: list[str],
    bar: Any,
    on_record: Callable[[dict[str, Any]], None] | None,
    on_checkpoint: Callable[[GPT, int], None] | None,
) -> None:
    config = trainer.config

    def write(record: dict[str, Any]) -> None:
        log.write(record)
        if bar is not None and "loss" in record:
            bar.set_postfix({record["kind"]: f"{record['loss']:.3f}"})
        if on_record is not None:
            on_record(record)

    def evaluation() -> None:
        loss = trainer.evaluate()
        per_byte = loss / trainer.data.val_bytes_per_token
        write({"kind": "eval", "step": trainer.step, "loss": loss, "nats_per_byte": per_byte})

    def save() -> None:
        trainer.check_finite()
        log.sync()
        save_checkpoint(run_dir, model=trainer.model, config=config, state=trainer.state())
        observe()

    def observe() -> None:
        if on_checkpoint is not None:
            on_checkpoint(trainer.model, trainer.step)

    if trainer.step == 0:
        evaluation()
    observe()
    saved_step = trainer.step
    if (probe := trainer.probe) is not None:
        probe.start(trainer.step)
    while trainer.step < config.steps and not received:
        trainer.train_step()
        if probe is not None and (scalars := probe.scalars(trainer.step - 1)):
            write({"kind": "probe", "step": trainer.step, **json_values(scalars)})
        step, last = trainer.step, trainer.step == config.steps
        if bar is not None:
            bar.update()
        if last or step % config.log_every == 0:
            write(trainer.take_record())
        if last or step % config.eval_every == 0:
            evaluation()
        if last or step % config.checkpoint_every == 0:
            save()
            saved_step = step
    if trainer.step != saved_step:
        save()
    if bar is not None:
        bar.close()


def _bar(config: TrainConfig, step: int, progress: bool | str) -> Any:
    if not progress or (progress != "always" and not sys.stderr.isatty()):
        return None
    try:
        tqdm = require("tqdm", extra="train", purpose="the progress bar")
    except RunError:
        if progress == "always":
            raise
        return None
    return tqdm.tqdm(total=config.steps, initial=step, desc=config.model.connection, unit="step")


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them; only in the main thread."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
