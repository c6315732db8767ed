"""The update step: same data for every connection, accumulation, switches, and numbers gone bad."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hyperstreams.train import (
    MissingExtraError,
    NonFiniteError,
    RunError,
    TrainConfig,
    open_data,
    read_metrics,
    run_training,
)
from hyperstreams.train.trainer import Trainer

Make = Callable[..., TrainConfig]


def make_trainer(config: TrainConfig) -> Trainer:
    data = open_data(config.dataset, block_size=config.model.block_size)
    return Trainer(config.with_vocabulary(data.tokenizer.vocab_size), data)


def test_loss_falls_and_is_logged(make_config: Make) -> None:
    config = make_config(steps=60, lr=1e-2)
    summary = run_training(config, progress=False)
    evals = read_metrics(summary.out_dir, "eval")
    assert [record["step"] for record in evals] == [0, *range(4, 61, 4)]
    assert evals[0]["loss"] == pytest.approx(5.55, abs=0.1)  # log 256: nothing known yet
    assert summary.final_eval_loss == evals[-1]["loss"] < 4.0
    assert summary.final_eval_nats_per_byte == pytest.approx(evals[-1]["loss"])
    train = read_metrics(summary.out_dir, "train")
    assert [record["step"] for record in train] == list(range(2, 61, 2))
    assert train[0]["lr"] == pytest.approx(1e-2 * 2 / 3)
    assert all(record["ms_per_step"] > 0 for record in train)
    assert summary.best_eval_loss == min(record["loss"] for record in evals)


def test_connections_see_the_same_batches_and_start_from_the_same_branches(
    make_config: Make,
) -> None:
    first = make_trainer(make_config(connection="residual"))
    second = make_trainer(make_config(connection="mhc"))
    for step in (0, 7):
        for (a, _), (b, _) in zip(
            first._micro_batches(step), second._micro_batches(step), strict=True
        ):
            assert torch.equal(a, b)
    weights = second.model.state_dict()
    shared = {k: v for k, v in first.model.state_dict().items() if k in weights}
    assert "token_embedding.weight" in shared
    assert all(torch.equal(weights[name], value) for name, value in shared.items())


def test_accumulation_is_the_mean_over_micro_batches(make_config: Make) -> None:
    whole = make_trainer(make_config(batch_size=4, lr=1e-3))
    parts = make_trainer(make_config(batch_size=1, accumulation=4, lr=1e-3))
    for _ in range(3):
        whole.train_step()
        parts.train_step()
    assert parts.take_record()["loss"] == pytest.approx(whole.take_record()["loss"], rel=1e-5)
    for a, b in zip(whole.parameters, parts.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_clipping_bounds_the_gradient_that_is_applied(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(make_config(grad_clip=1e-3))
    norms = []
    step = trainer.optimizer.step

    def spy() -> None:
        squares = [p.grad.square().sum() for p in trainer.parameters if p.grad is not None]
        norms.append(torch.stack(squares).sum().sqrt().item())
        step()

    monkeypatch.setattr(trainer.optimizer, "step", spy)
    trainer.train_step()
    assert norms == pytest.approx([1e-3], rel=1e-3)
    assert trainer.take_record()["grad_norm"] > 1e-2


def test_connection_learning_rate_multiplier(make_config: Make) -> None:
    trainer = make_trainer(make_config(connection="mhc_lite", connection_lr_multiplier=0.5))
    trainer.train_step()
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates["connection"] == pytest.approx(rates["decay"] / 2)


def test_weight_decay_policy_reaches_the_optimizer(make_config: Make) -> None:
    for policy, decayed in (("no_decay", False), ("paper", True)):
        trainer = make_trainer(make_config(connection="mhc", connection_policy=policy))
        groups = [g for g in trainer.optimizer.param_groups if g["name"].startswith("connection")]
        assert any(group["weight_decay"] > 0 for group in groups) is decayed


def test_autocast_and_compile_switches(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 4, "connection": "residual"}
    plain = run_training(make_config("plain", **settings), progress=False)
    half = run_training(make_config("half", autocast="bfloat16", **settings), progress=False)
    assert plain.final_eval_loss is not None
    assert half.final_eval_loss != plain.final_eval_loss
    assert half.final_eval_loss == pytest.approx(plain.final_eval_loss, rel=1e-2)
    compiled = []
    compile_model = functools.partial(torch.compile, fullgraph=True, backend="eager")
    # The graph is what is tested here; Inductor's code for it would take long to compile.
    monkeypatch.setattr(torch, "compile", lambda m: compiled.append(m) or compile_model(m))
    graph = run_training(make_config("compiled", compile=True, **settings), progress=False)
    assert len(compiled) == 1
    assert graph.final_eval_loss == pytest.approx(plain.final_eval_loss, rel=1e-5)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_absent_device_is_worded(make_config: Make, device: str) -> None:
    config = make_config(device=device)
    with pytest.raises(RunError, match=f"device: expected one that is present, got '{device}'"):
        run_training(config, progress=False)
    assert not config.run_dir().exists()


def poison_weight(trainer: Trainer) -> None:
    hidden = trainer.model.sites["L0m"].branch.hidden
    torch.nn.init.constant_(hidden.weight, 3e38)


def poison_parameter(trainer: Trainer) -> None:
    torch.nn.init.constant_(trainer.model.sites["L0a"].branch.norm.weight, torch.nan)


def poison_gradient(trainer: Trainer) -> None:
    weight = trainer.model.sites["L0a"].branch.qkv.weight
    weight.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize(
    ("poison", "module", "reason"),
    [
        (poison_weight, "sites.L0m.branch.hidden", "output of Linear, its inputs are finite"),
        (poison_parameter, "sites.L0a.branch.norm", "parameter sites.L0a.branch.norm.weight"),
        (poison_gradient, "sites.L0a.branch.qkv", "gradient of sites.L0a.branch.qkv.weight"),
    ],
)
@pytest.mark.parametrize("connection", ["residual", "mhc_lite"])
def test_bad_numbers_stop_with_step_and_module(
    make_config: Make,
    connection: str,
    poison: Callable[[Trainer], None],
    module: str,
    reason: str,
) -> None:
    trainer = make_trainer(make_config(connection=connection))
    for _ in range(3):
        trainer.train_step()
    poison(trainer)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(NonFiniteError) as caught:
        trainer.train_step()
    assert caught.value.step == 3
    assert caught.value.module == module
    assert "not finite at step 3" in str(caught.value)
    assert reason in str(caught.value)
    after = trainer.model.state_dict()
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)


def test_bad_numbers_found_late_still_name_the_first_step(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the flag is read at records only, updates stop at the first bad step all the same."""
    trainer = make_trainer(make_config(connection="mhc_lite"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "check_finite", lambda: None)
        trainer.train_step()
        poison_weight(trainer)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        for _ in range(4):
            trainer.train_step()
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(NonFiniteError) as caught:
        trainer.take_record()
    assert (caught.value.step, caught.value.module) == (1, "sites.L0m.branch.hidden")


def test_bad_numbers_are_logged_and_the_last_checkpoint_stays(make_config: Make) -> None:
    config = make_config(lr=1e25, min_lr=0.0, warmup_steps=8, grad_clip=None, log_every=1)
    with pytest.raises(NonFiniteError) as caught:
        run_training(config, progress=False)
    records: list[dict[str, Any]] = read_metrics(config.run_dir())
    assert records[-1]["kind"] == "nonfinite"
    assert records[-1]["step"] == caught.value.step
    assert caught.value.step > 0


def test_bad_validation_loss_stops_too(make_config: Make) -> None:
    trainer = make_trainer(make_config(connection="mhc"))
    poison_weight(trainer)
    with pytest.raises(NonFiniteError, match="validation loss not finite at step 0") as caught:
        trainer.evaluate()
    assert caught.value.module == "sites.L0m.branch.hidden"


def test_progress_bar_when_asked(make_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run_training(make_config("plain"))
    assert capsys.readouterr().err == ""  # not a terminal
    run_training(make_config("shown"), progress="always")
    assert "12/12" in capsys.readouterr().err


def test_progress_bar_without_tqdm(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    run_training(make_config("plain"))
    with pytest.raises(MissingExtraError, match=r"the progress bar needs.*hyperstreams\[train\]"):
        run_training(make_config("shown"), progress="always")


@pytest.mark.parametrize("connection", ["mhc_lite", "residual_dual", "residual"])
def test_probe_records(make_config: Make, connection: str) -> None:
    with_probe = make_config("probed", connection=connection, probe_every=4)
    without = make_config("plain", connection=connection)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_training(with_probe, progress=False)
    said = [str(w.message) for w in caught if "has no streams to probe" in str(w.message)]
    assert len(said) == (connection == "residual")
    run_training(without, progress=False)
    records = read_metrics(with_probe.run_dir(), "probe")
    if connection == "residual":
        assert records == []
    else:
        # Of updates 0, 1, 2 (the dense beginning), 4, 8: a record counts the updates so far.
        steps = [step for step in (1, 2, 3, 5, 9, 13) if step <= with_probe.steps]
        assert [record["step"] for record in records] == steps
        assert all(record["norm/L0m/s1"] > 0 for record in records)
    plain, probed = (read_metrics(c.run_dir(), "eval") for c in (without, with_probe))
    assert plain == probed
