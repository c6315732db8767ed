"""Every setting of a training run, model included, in one flat namespace."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..models import GPTConfig
from .errors import RunError
from .options import convert, field_types, read_toml, unknown_name


def setting(default: Any, help: str) -> Any:
    """A field with a default and the line that ``--help`` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run. The defaults train the tiny preset on the built-in corpus.

    One step sees ``batch_size * accumulation`` windows of ``block_size`` tokens. The learning rate
    rises linearly over ``warmup_steps`` and falls as a cosine from ``lr`` to ``min_lr`` (None:
    a tenth of ``lr``) at the last step. ``seed`` determines initial weights and data order,
    separately: models that differ in the connection see the same batches.
    """

    out_dir: str | None = setting(None, "run directory (none: a name from the settings, in runs/)")
    seed: int = setting(0, "determines initial weights and, separately, the order of the data")
    dataset: str = setting(
        "builtin", "'builtin' (Python's own library), a text file, a token folder"
    )
    tokenizer: Literal["auto", "byte", "char", "gpt2"] = setting(
        "auto", "auto: a token folder's own, bytes for text"
    )
    val_fraction: float = setting(0.1, "last part of a text file, kept for validation")

    steps: int = setting(1500, "updates")
    batch_size: int = setting(16, "windows in a micro-batch")
    accumulation: int = setting(1, "micro-batches in a step")
    lr: float = setting(5e-3, "peak learning rate")
    min_lr: float | None = setting(None, "learning rate of the last step (none: lr / 10)")
    warmup_steps: int = setting(100, "steps of linear warm-up")
    weight_decay: float = setting(0.1, "of tensors with two or more dimensions")
    beta1: float = setting(0.9, "AdamW's decay of the first moment")
    beta2: float = setting(0.95, "AdamW's decay of the second moment")
    grad_clip: float | None = setting(1.0, "largest gradient norm (none: no clipping)")
    connection_policy: Literal["no_decay", "dynamic", "paper", "all"] = setting(
        "no_decay", "weight decay of connection parameters; see models.decay.DECAY_POLICIES"
    )
    connection_lr_multiplier: float = setting(1.0, "of the connection parameters' learning rate")

    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")
    autocast: Literal["none", "bfloat16"] = setting("none", "precision of the matrix products")
    compile: bool = setting(False, "run the model through torch.compile")

    log_every: int = setting(10, "steps between training records")
    eval_every: int = setting(250, "steps between evaluations")
    eval_windows: int = setting(128, "validation windows, fixed and evenly spaced")
    checkpoint_every: int = setting(250, "steps between checkpoints")
    probe_every: int = setting(0, "steps between records of what the streams do (0: none)")

    model: GPTConfig = field(default_factory=GPTConfig)

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "accumulation", "log_every", "eval_every")
        for name in (*positive, "eval_windows", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise RunError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("lr", "connection_lr_multiplier"):
            if not getattr(self, name) > 0:
                raise RunError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "probe_every"):
            if not getattr(self, name) >= 0:
                raise RunError(f"{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise RunError(f"{name}: expected a number in [0, 1), got {getattr(self, name)}")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise RunError(f"grad_clip: expected a positive number or none, got {self.grad_clip}")
        if self.min_lr is not None and not 0 <= self.min_lr <= self.lr:
            raise RunError(f"min_lr: expected a number in 0..lr = {self.lr}, got {self.min_lr}")

    def flat(self) -> dict[str, Any]:
        """Every setting by name, the model's among them; JSON-able."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "model"}
        return {**own, **dataclasses.asdict(self.model)}

    def fingerprint(self) -> str:
        """Hash of every setting that the resulting weights depend on."""
        settings = {key: value for key, value in self.flat().items() if key not in BOOKKEEPING}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def run_dir(self) -> Path:
        """Where the run lives: ``out_dir``, or a name that equal settings share."""
        if self.out_dir is not None:
            return Path(self.out_dir)
        return Path("runs") / f"{self.model.connection}-seed{self.seed}-{self.fingerprint()}"

    def with_vocabulary(self, vocab_size: int) -> TrainConfig:
        """The same settings with the model's vocabulary set to the tokeniser's."""
        model = dataclasses.replace(self.model, vocab_size=vocab_size)
        return dataclasses.replace(self, model=model)


BOOKKEEPING = frozenset(
    {"out_dir", "log_every", "eval_every", "checkpoint_every", "probe_every", "vocab_size"}
)
"""Settings that change what is written, not what is learned, and one that follows from the data."""


def known_settings() -> dict[str, Any]:
    """Types of all settings that files and the command line may give, ``preset`` among them."""
    train = field_types(TrainConfig)
    del train["model"]
    model = field_types(GPTConfig)
    if clash := train.keys() & model.keys():
        raise TypeError(f"TrainConfig and GPTConfig both have {sorted(clash)}")
    return {"preset": str, **train, **model}


def build_config(settings: Mapping[str, object]) -> TrainConfig:
    """A config from flat settings; everything not given keeps its default (or the preset's)."""
    known = known_settings()
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise unknown_name("setting", name, known)
        values[name] = convert(name, known[name], value)
    preset = values.pop("preset", "tiny")
    model_names = field_types(GPTConfig)
    model = {name: values.pop(name) for name in list(values) if name in model_names}
    try:
        built = GPTConfig.preset(preset, **model)
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from error
    return TrainConfig(model=built, **values)


def load_settings(
    paths: Sequence[str | Path], overrides: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Flat settings of TOML files stacked left to right, then ``overrides``; names checked."""
    known = known_settings()
    settings: dict[str, object] = {}
    for path in paths:
        for name, value in read_toml(path).items():
            try:
                if name not in known:
                    raise unknown_name("setting", name, known)
                settings[name] = convert(name, known[name], value)
            except RunError as error:
                raise RunError(f"{path}: {error}") from error
    settings.update(overrides or {})
    if "vocab_size" in settings:
        raise RunError("vocab_size follows from the tokenizer; it cannot be set")
    return settings


def load_config(
    paths: Sequence[str | Path], overrides: Mapping[str, object] | None = None
) -> TrainConfig:
    """The config of TOML files stacked left to right, then ``overrides``."""
    return build_config(load_settings(paths, overrides))
