"""The runs behind the figures: one folder, a name with the hash of the settings, trained once."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..diagnostics import capture
from ..models import GPT
from ..train import NonFiniteError, TrainConfig, open_data, run_training
from ..train.run_dir import finished_summary
from .labels import config_labels
from .progress import Progress
from .runs import HISTORY_BATCH_SIZE, HISTORY_WINDOWS, history_path

DEFAULT_ROOT = "runs/figures"


def unique(configs: Sequence[TrainConfig]) -> list[TrainConfig]:
    """Each settings once, in order: figures share runs."""
    return list({config.fingerprint(): config for config in configs}.values())


class RunCache:
    """Finds or trains runs under ``root``; any figure's runs serve every other figure."""

    def __init__(self, root: str | Path = DEFAULT_ROOT) -> None:
        self.root = Path(root)

    def place(self, config: TrainConfig) -> TrainConfig:
        """The config with its folder: connection, seed and fingerprint."""
        name = f"{config.model.connection}-seed{config.seed}-{config.fingerprint()}"
        return dataclasses.replace(config, out_dir=str(self.root / name))

    def missing(self, configs: Sequence[TrainConfig]) -> list[TrainConfig]:
        """Those that are not finished, placed."""
        placed = [self.place(config) for config in unique(configs)]
        return [config for config in placed if finished_summary(config.run_dir()) is None]

    def folders(self, configs: Sequence[TrainConfig]) -> list[Path]:
        """Folders of ``configs`` in order, trained or not."""
        return [self.place(config).run_dir() for config in unique(configs)]

    def train(self, configs: Sequence[TrainConfig], *, quiet: bool = False) -> list[Path]:
        """Train what is missing, continue what was interrupted; folders of all, in order.

        The streams of every checkpoint, and of the model before the first step, are captured on
        the way. Raises :class:`InterruptedError` after a signal; the same call continues.
        """
        missing = self.missing(configs)
        labels = config_labels(missing)
        if missing:
            costs = [
                float(config.batch_size * config.accumulation * config.model.n_streams)
                for config in missing
            ]
            progress = Progress(labels, costs, [config.steps for config in missing])
            for index, config in enumerate(missing):
                try:
                    summary = run_training(
                        config,
                        resume=True,
                        progress=False,
                        on_record=None if quiet else progress.start(index),
                        on_checkpoint=Historian(config),
                    )
                except NonFiniteError as error:
                    raise NonFiniteError(
                        f"{labels[index]} ({config.run_dir()}): {error}",
                        step=error.step,
                        module=error.module,
                    ) from error
                if summary.stopped != "finished":
                    raise InterruptedError(summary.stopped)
                if not quiet:
                    progress.finish(
                        f"[{index + 1}/{len(missing)}] {labels[index]:<24} "
                        f"{summary.final_eval_nats_per_byte:.4f} nats per byte"
                    )
        return self.folders(configs)


class Historian:
    """Captures the streams of a model in training at every checkpoint, on the same windows."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The windows, read once."""
        config = self.config
        data = open_data(
            config.dataset,
            tokenizer=config.tokenizer,
            block_size=config.model.block_size,
            val_fraction=config.val_fraction,
        )
        return list(data.eval_batches(HISTORY_BATCH_SIZE, HISTORY_WINDOWS))

    def __call__(self, model: GPT, step: int) -> None:
        config = self.config
        path = history_path(config.run_dir(), step)
        if not config.model.has_streams or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        details = {"step": step, "seed": config.seed, "split": "validation, fixed windows"}
        capture(model, self.batches, details=details).save(path)


def train_command(config: TrainConfig) -> str:
    """The shell command that trains ``config``: every setting that is not a default."""
    defaults = TrainConfig().flat()
    words = ["hyperstreams", "train"]
    for name, value in config.flat().items():
        if name == "vocab_size" or value == defaults[name]:
            continue
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
        words += [f"--{name}", text]
    return shlex.join(words)
