"""Settings: one flat namespace, checked names and types, files stacked under the command line."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hyperstreams.models import GPTConfig
from hyperstreams.train import RunError, TrainConfig, build_config, load_config
from hyperstreams.train.trainer import learning_rate

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_files_stack_and_overrides_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('preset = "small"\nsteps = 10\nlr = 1\nwidth = 64\n')
    second.write_text('steps = 20\nconnection = "hc"\n')
    config = load_config([first, second], {"n_head": 4})
    assert (config.steps, config.model.connection, config.model.width) == (20, "hc", 64)
    assert config.model.n_layer == GPTConfig.preset("small").n_layer
    assert config.model.n_head == 4
    assert config.lr == 1.0
    assert isinstance(config.lr, float)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_example_configs_are_valid(path: Path) -> None:
    assert load_config([path]).steps > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_step": 3}, "unknown setting 'warmup_step'; did you mean 'warmup_steps'?"),
        ({"steps": "many"}, "steps: expected int, got 'many'"),
        ({"steps": 2.5}, "steps: expected int, got 2.5"),
        ({"steps": True}, "steps: expected int, got True"),
        ({"lr": "fast"}, "lr: expected float, got 'fast'"),
        ({"compile": 1}, "compile: expected bool, got 1"),
        ({"tokenizer": "bpe"}, "tokenizer: expected 'auto' or 'byte' or 'char' or 'gpt2'"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"beta2": 1.0}, "beta2: expected a number in"),
        ({"lr": 0.1, "min_lr": 0.2}, "min_lr: expected a number in"),
        ({"connection": "mhc_light"}, "did you mean 'mhc_lite'"),
        ({"preset": "tinny"}, "did you mean 'tiny'"),
        ({"width": 10, "n_head": 4}, "width"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError) as caught:
        build_config(settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "unknown setting 'stepz'; did you mean 'steps'?"),
        ("[model]\nwidth = 3", "one flat namespace"),
        ("steps = ", "not valid TOML"),
        ("steps = 'x'", "steps: expected int"),
        ("vocab_size = 10", "vocab_size follows from the tokenizer"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RunError) as caught:
        load_config([path])
    assert message in str(caught.value)
    assert "vocab" in message or "bad.toml" in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such config file"):
        load_config([tmp_path / "none.toml"])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("grad_clip", "none", None),
        ("grad_clip", "0.5", 0.5),
        ("out_dir", "none", None),
        ("lr", "3e-4", 3e-4),
        ("compile", "true", True),
        ("compile", "0", False),
        ("seed", "-1", -1),
    ],
)
def test_text_becomes_the_type(name: str, text: str, value: object) -> None:
    assert build_config({name: text}).flat()[name] == value


def test_config_survives_json() -> None:
    config = build_config({"lr": 1e-3, "grad_clip": None, "connection": "mhc", "n_streams": 2})
    assert build_config(json.loads(json.dumps(config.flat()))) == config


def test_fingerprint_follows_what_is_learned() -> None:
    config = TrainConfig()
    same = dataclasses.replace(config, out_dir="x", log_every=3, checkpoint_every=7)
    assert same.fingerprint() == config.fingerprint()
    for changed in (
        dataclasses.replace(config, seed=1),
        dataclasses.replace(config, lr=1e-3),
        dataclasses.replace(config, model=GPTConfig(connection="hc")),
    ):
        assert changed.fingerprint() != config.fingerprint()
        assert changed.run_dir() != config.run_dir()


def test_schedule() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, lr=1.0, min_lr=0.1)
    rates = [learning_rate(config, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[109] == pytest.approx(0.1)
    assert (rates[59] + rates[60]) / 2 == pytest.approx(0.55)  # half-way down the cosine
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(TrainConfig(steps=1, warmup_steps=0, lr=1.0), 0) == 1.0
