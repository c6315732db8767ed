"""Whole models of the released nanoGPT forks: logits, loss and every gradient; and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams.interop.checkpoint import open_checkpoint
from hyperstreams.interop.nanogpt import convert_nanogpt
from safetensors import safe_open
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
KINDS = ["none", "hc", "mhc", "mhc_lite", "mhc_lite_lss", "kromhc"]


def golden(kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The numbers, and the released model's arguments."""
    with safe_open(GOLDEN / f"gpt_{kind}.safetensors", "pt") as file:
        arguments = file.metadata()
        data = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    numbers = ("n_head", "hyper_conn_n", "n_layer", "n_embd", "block_size", "vocab_size")
    return data, {
        **{name: int(arguments[name]) for name in numbers},
        "dropout": 0.0,
        "bias": arguments["bias"] == "True",
        "hyper_conn_type": kind,
        "expand_lss_init": 0.6 if kind == "mhc_lite_lss" else None,
    }


def parameters(data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix("param/"): v for n, v in data.items() if n.startswith("param/")}


def gap(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry where that exceeds 1."""
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1)).item()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients(kind: str) -> None:
    data, arguments = golden(kind)
    foreign = {name: value.requires_grad_() for name, value in parameters(data).items()}
    checkpoint = open_checkpoint({"model": foreign, "model_args": arguments})
    config, state, _ = convert_nanogpt(checkpoint, checkpoint.settings, strict=True)
    assert config.expand == ("learned_scale" if kind == "mhc_lite_lss" else "replicate")
    model = hs.GPT(config, generator=torch.Generator())
    logits, loss = torch.func.functional_call(model, state, (data["tokens"], data["targets"]))
    assert gap(logits, data["logits"]) <= 1e-5
    assert gap(loss, data["loss"]) <= 1e-5
    loss.backward()
    assert {n for n in data if n.startswith("grad/")} == {f"grad/{name}" for name in foreign}
    for name, value in foreign.items():
        assert value.grad is not None
        assert gap(value.grad, data[f"grad/{name}"]) <= 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_file_in_and_out(kind: str, tmp_path: Path) -> None:
    data, arguments = golden(kind)
    saved = {"model": parameters(data), "model_args": arguments, "iter_num": 7}
    torch.save(saved, tmp_path / "ckpt.pt")
    for source in (tmp_path, tmp_path / "ckpt.pt", saved):
        model, report = hs.load_foreign(source)
        assert report.source == "nanogpt"
        assert report.dropped == ["iter_num"]
        assert gap(model(data["tokens"])[0], data["logits"]) <= 1e-5
    written = hs.to_foreign(model, "nanogpt")
    assert written["model_args"] == arguments
    for name, value in parameters(data).items():
        # gamma + 1 - 1 rounds.
        torch.testing.assert_close(written["model"][name], value, atol=1e-7, rtol=0)
    # Every name under which the released modules store the same tensor again.
    assert torch.equal(
        written["model"]["transformer.h.1.hc_mlp.branch.1.c_fc.weight"],
        written["model"]["transformer.h.1.branch_mlp.1.c_fc.weight"],
    )
    assert "lm_head.weight" in written["model"]
    again, _ = hs.load_foreign(written)
    assert torch.equal(again(data["tokens"])[0], model(data["tokens"])[0])
    assert "tensors mapped" in str(report)


def test_own_model_goes_out(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"vocab_size": 11, "block_size": 6, "n_layer": 1, "n_head": 2}
    model = hs.GPT(hs.GPTConfig(**shape, width=8, connection="kromhc"))
    again, _ = hs.load_foreign(hs.to_foreign(model, "nanogpt"))
    tokens = torch.randint(11, (1, 6))
    assert torch.equal(again(tokens)[0], model(tokens)[0])
    # With two streams mHC-lite's tensors look the same.
    model = hs.GPT(hs.GPTConfig(**shape, width=8, connection="kromhc", n_streams=2))
    again, report = hs.load_foreign(hs.to_foreign(model, "nanogpt"))
    assert again.config.connection == "kromhc"
    assert not any("hyper_conn_type" in line for line in report.assumed)
    for changes, message in [
        ({"connection": "hc"}, "connection 'hc': eps: expected 1e-12 as in 'lucidrains_hc'"),
        ({"connection": "deepseek_v4"}, "connection 'deepseek_v4': mixer: expected"),
        ({"connection": "go_mhc"}, "connection: expected one of .* got 'go_mhc'"),
        ({"connection": "rezero"}, "connection: expected one of residual, .* got 'rezero'"),
        ({"final_norm": "after_reduce"}, "final_norm: expected 'before_reduce', as released"),
        ({"expand": "noise"}, "expand: expected 'replicate' or 'learned_scale'"),
        ({"norm": "rms"}, "norm: expected 'layer', as released, got 'rms'"),
        ({"mlp_width": 24}, "mlp_width: expected None or 32, as released, got 24"),
        ({"connection": "mhc", "expand": "learned_scale"}, "with 'mhc_lite' alone"),
    ]:
        config = hs.GPTConfig(**{**shape, "width": 8, **changes})
        with pytest.raises(ValueError, match=message):
            hs.to_foreign(hs.GPT(config), "nanogpt")


def test_bad_checkpoints(tmp_path: Path) -> None:
    data, arguments = golden("mhc")
    good = parameters(data)

    def load(changes: dict[str, Tensor], without: str = "", **options: Any) -> Any:
        state = {n: v for n, v in {**good, **changes}.items() if n != without}
        return hs.load_foreign({"model": state, "model_args": arguments}, **options)

    extra = {"transformer.h.0.hc_attn.novelty": torch.ones(1)}
    with pytest.raises(ValueError, match=r"unknown tensors: .*novelty.*strict=False drops"):
        load(extra)
    _, report = load(extra, strict=False)
    assert len(report.dropped) == 1
    with pytest.raises(ValueError, match=r"unknown tensors: transformer\.h\.0\.attn"):
        load({"transformer.h.0.attn.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"missing transformer.wpe.weight"):
        load({}, without="transformer.wpe.weight")
    with pytest.raises(ValueError, match=r"L0a.*missing static_beta"):
        load({}, without="transformer.h.0.hc_attn.static_beta")
    with pytest.raises(ValueError, match=r"missing tensors of sites.L1m.branch.hidden.weight"):
        load({}, without="transformer.h.1.branch_mlp.1.c_fc.weight")
    with pytest.raises(ValueError, match=r"lm_head.weight: expected the same values"):
        load({"lm_head.weight": 2 * good["transformer.wte.weight"]})
    with pytest.raises(ValueError, match=r"config: expected nanoGPT's model_args with 'n_head'"):
        hs.load_foreign(good)
    model, report = load({"transformer.h.0.branch_attn.1.bias": torch.ones(1, 1, 6, 6)})
    assert report.dropped == ["transformer.h.0.branch_attn.1.bias"]
    assert model.sites["L0a"].connection.designated_stream.item() in range(3)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        hs.load_foreign(tmp_path / "nothing.pt")
    with pytest.raises(FileNotFoundError, match="files in the folder"):
        hs.load_foreign(tmp_path)
    torch.save({"model": good, "optimizer": torch.nn.Linear(1, 1)}, tmp_path / "objects.pt")
    with pytest.raises(ValueError, match="holds other Python objects"):
        hs.load_foreign(tmp_path / "objects.pt")
