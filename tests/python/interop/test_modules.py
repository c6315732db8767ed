"""Names, heads, settings, errors and the way back of checkpoints that hold single sites."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams.interop import FOREIGN
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def deepseek(prefix: str, n: int = 3, width: int = 4) -> dict[str, Tensor]:
    k = n * (n + 2)
    return {
        f"{prefix}fn": rand(k, n * width, seed=len(prefix)),
        f"{prefix}base": rand(k, seed=len(prefix)),
        f"{prefix}scale": rand(3),
    }


def deepseek_head(prefix: str, n: int = 3, width: int = 4) -> dict[str, Tensor]:
    return {f"{prefix}fn": rand(n, n * width), f"{prefix}base": rand(n), f"{prefix}scale": rand(1)}


def head_cases() -> list[tuple[str, str]]:
    return [
        (peer, case)
        for peer in ("deepseek_v4", "megatron")
        for case in sorted(
            {n.partition(":")[0] for n in load_file(GOLDEN / f"{peer}_head.safetensors")}
        )
    ]


@pytest.mark.parametrize(("peer", "case"), head_cases())
def test_head(peer: str, case: str) -> None:
    """The output head of the released code: values and gradients."""
    stored = load_file(GOLDEN / f"{peer}_head.safetensors")
    data = {n.removeprefix(f"{case}:"): v for n, v in stored.items() if n.startswith(f"{case}:")}
    foreign = {n.rpartition("/")[2]: v for n, v in data.items() if n.startswith("param/")}
    prefix = {"deepseek_v4": "model.hc_head.", "megatron": "decoder.hc_head_"}[peer]
    modules, report = hs.load_foreign(
        {prefix + n: v for n, v in foreign.items()}, source=peer, config={"layernorm_epsilon": 1e-5}
    )
    assert set(report.mapped.values()) == {"head.phi", "head.bias", "head.alpha"}
    head = modules["head"]
    x = data["x"].requires_grad_()
    out = head(x)
    torch.testing.assert_close(out, data["out"], atol=1e-5, rtol=0)
    (out * data["cotangent"]).sum().backward()
    torch.testing.assert_close(x.grad, data["grad/x"], atol=1e-5, rtol=0)
    ours = {"fn": head.phi, "base": head.bias, "scale": head.alpha}
    for name in foreign:
        parameter = ours[name.removeprefix("hc_")]
        torch.testing.assert_close(parameter.grad, data[f"grad/{name}"], atol=1e-5, rtol=0)


def test_deepseek_names(tmp_path: Path) -> None:
    """Hugging Face's names and the release's give the same modules."""
    hugging = {
        **deepseek("model.layers.0.attn_hc."),
        **deepseek("model.layers.0.ffn_hc."),
        **deepseek("model.layers.12.attn_hc."),
        **deepseek_head("model.hc_head.hc_"),
        "model.layers.0.self_attn.wq.weight": rand(2),
    }
    release = {
        name.removeprefix("model.")
        .replace("attn_hc.", "hc_attn_")
        .replace("ffn_hc.", "hc_ffn_")
        .replace("hc_head.hc_", "hc_head_"): value
        for name, value in hugging.items()
    }
    release |= deepseek("mtp.0.hc_ffn_") | deepseek_head("mtp.0.hc_head_")
    first, report = hs.load_foreign(hugging)
    assert report.source == "deepseek_v4"
    assert report.dropped == ["1 tensors outside the connections"]
    assert "hc_sinkhorn_iters=20: the checkpoint does not record it" in report.assumed
    assert list(first) == ["L0a", "L0m", "L12a", "head"]
    save_file(release, tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"hc_eps": 1e-6, "rms_norm_eps": 1e-6, "hc_sinkhorn_iters": 20, "hc_mult": 3})
    )
    second, report = hs.load_foreign(tmp_path)
    assert report.source == "deepseek_v4_release"
    assert report.assumed == []
    assert list(second) == ["L0a", "L0m", "L12a", "mtp0m", "head", "mtp0head"]
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)
    assert {n for n in report.mapped if n.startswith("mtp")} == {
        f"mtp.0.{part}_{tensor}"
        for part in ("hc_ffn", "hc_head")
        for tensor in ("fn", "base", "scale")
    }
    written = hs.to_foreign(first, "deepseek_v4")
    assert written.keys() == hugging.keys() - {"model.layers.0.self_attn.wq.weight"}
    assert all(torch.equal(value, hugging[name]) for name, value in written.items())
    written = hs.to_foreign(second, "deepseek_v4_release")
    assert written.keys() | {"layers.0.self_attn.wq.weight"} == release.keys()


SITES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Source: tensors of one site with n = 4 and C = 5, and the options of loading.
    "hc": (
        {
            "static_alpha": rand(4, 5),
            "static_beta": rand(4),
            "dynamic_alpha_fn": rand(5, 5),
            "dynamic_beta_fn": rand(5),
            "dynamic_alpha_scale": rand(),
            "dynamic_beta_scale": rand(),
            "norm.gamma": rand(5),
        },
        {"target": "hyper_connections"},
    ),
    "mhc": (
        {
            "static_alpha": rand(4, 5),
            "static_beta": rand(4),
            "dynamic_alpha_fn": rand(20, 20),
            "dynamic_beta_fn": rand(20, 4),
            "pre_branch_scale": rand(1),
            "residual_scale": rand(1),
            "h_post_scale": rand(),
            "norm.gamma": rand(20),
        },
        {"target": "hyper_connections"},
    ),
    "lucidrains_mhc": (
        {
            "static_alpha": rand(4, 5),
            "static_beta": rand(4),
            "dynamic_alpha_fn": rand(1, 5, 5),
            "dynamic_beta_fn": rand(5),
            "pre_branch_scale": rand(1),
            "residual_scale": rand(1),
            "h_post_scale": rand(),
            "norm.gamma": rand(5),
        },
        {"target": "hyper_connections"},
    ),
    "kromhc": (
        {
            "static_alpha": rand(8),
            "static_beta": rand(4),
            "dynamic_alpha_fn": rand(20, 8),
            "dynamic_beta_fn": rand(20, 4),
            "pre_branch_scale": rand(1),
            "residual_scale": rand(1),
            "h_post_scale": rand(),
            "norm.gamma": rand(20),
        },
        {"target": "hyper_connections"},
    ),
    "mhc_lite": (
        {
            "static_alpha": rand(28),
            "static_beta": rand(4),
            "dynamic_alpha_fn": rand(20, 28),
            "dynamic_beta_fn": rand(20, 4),
            "pre_branch_scale": rand(1),
            "residual_scale": rand(1),
            "h_post_scale": rand(),
            "norm.gamma": rand(20),
        },
        {"target": "hyper_connections"},
    ),
    "tokenbender": (
        {"H_res_logits": rand(4, 4), "H_pre_logits": rand(4), "H_post_logits": rand(4)},
        {"target": "hyper_connections"},
    ),
    "megatron": (
        {
            "mapping_proj.weight": rand(24, 20),
            "bias": rand(24),
            **{f"alpha_{part}": rand(1) for part in ("pre", "post", "res")},
        },
        {"target": "megatron", "prefix": "decoder.layers.3.mlp_hyper_connection."},
    ),
    "liger": (
        {
            "phi": rand(20, 24),
            "b": rand(24),
            **{f"alpha_{part}": rand() for part in ("pre", "post", "res")},
        },
        {"target": "liger"},
    ),
    "transformer_engine": (
        {"phi": rand(24, 20), "alpha": rand(3), "beta": rand(1, 24)},
        {"target": "transformer_engine"},
    ),
}


@pytest.mark.parametrize("kind", list(SITES))
@pytest.mark.parametrize("prefix", ["", "blocks.2.mix."])
def test_there_and_back(kind: str, prefix: str) -> None:
    tensors, options = SITES[kind]
    prefix = options.get("prefix", prefix)
    foreign = {prefix + name: value for name, value in tensors.items()}
    modules, report = hs.load_foreign(foreign)
    assert report.source == options["target"]
    assert report.dropped == []
    assert report.mapped.keys() == foreign.keys()
    expected = {"": "site", "blocks.2.mix.": "blocks_2_mix"}.get(prefix, "L3m")
    assert list(modules) == [expected]
    assert modules[expected].config.name == {"hc": "lucidrains_hc"}.get(kind, kind)
    written = hs.to_foreign(modules, options["target"])
    renamed = {name.replace("blocks_2_mix.", "blocks.2.mix."): v for name, v in written.items()}
    assert renamed.keys() == foreign.keys()
    for name, value in renamed.items():
        # Only gamma + 1 - 1 rounds.
        torch.testing.assert_close(value, foreign[name], atol=2.5e-7, rtol=0)
    for name in set(FOREIGN) - {options["target"], "nanogpt"}:
        with pytest.raises(ValueError, match=r"to_foreign: .*expected"):
            hs.to_foreign(modules, name)


def test_branches_and_unused_tensors_are_dropped() -> None:
    """A tokenbender module also stores a controller that it does not use, and its branch."""
    tensors = SITES["tokenbender"][0] | SITES["hc"][0] | {"branch.weight": rand(5, 5)}
    modules, report = hs.load_foreign(tensors)
    assert modules["site"].config.name == "tokenbender"
    assert len(report.mapped) == 3
    assert "static_alpha" in report.dropped
    assert "1 tensors outside the connections" in report.dropped


def test_transformer_engine_padding_and_norm_weight() -> None:
    """phi padded to 32 rows is cut; a norm weight is kept, and folded when written back."""
    tensors, _ = SITES["transformer_engine"]
    weight = rand(20)
    padded = {**tensors, "phi": torch.cat([tensors["phi"], torch.full((8, 20), torch.nan)])}
    modules, _ = hs.load_foreign({**padded, "norm_weight": weight})
    folded, _ = hs.load_foreign({**tensors, "phi": tensors["phi"] * weight})
    x = rand(6, 4, 5)
    for ours, expected in zip(modules["site"](x), folded["site"](x), strict=True):
        torch.testing.assert_close(ours, expected)
    written = hs.to_foreign(modules["site"], "transformer_engine")
    torch.testing.assert_close(written["phi"], tensors["phi"] * weight)


def test_settings() -> None:
    tensors = deepseek("model.layers.0.attn_hc.")
    config = {"hc_eps": 1e-3, "hc_sinkhorn_iters": 5, "rms_norm_eps": 1e-2, "other": "x"}
    modules, report = hs.load_foreign(tensors, config=config)
    site = modules["L0a"].config
    assert (site.mixer.eps, site.mixer.iterations, site.eps) == (1e-3, 5, 1e-2)
    assert site.read_activation.offset == 1e-3
    assert report.assumed == []
    with pytest.raises(ValueError, match=r"mixer: expected Sinkhorn.*as in 'deepseek_v4'"):
        hs.to_foreign(modules, "deepseek_v4")
    assert torch.equal(
        hs.to_foreign(modules, "deepseek_v4", config=config)["model.layers.0.attn_hc.fn"],
        tensors["model.layers.0.attn_hc.fn"],
    )
    modules, _ = hs.load_foreign(SITES["hc"][0], config={"tanh": False})
    assert modules["site"].config.read_activation.kind == "none"
    with pytest.raises(ValueError, match="mhc_single_pass: expected False"):
        hs.load_foreign(tensors, config={"mhc_single_pass": True})


def test_low_precision_is_widened() -> None:
    tensors = {n: v.bfloat16() for n, v in deepseek("model.layers.0.attn_hc.").items()}
    modules, _ = hs.load_foreign(tensors)
    assert modules["L0a"].bias.dtype == torch.float32
    doubled = {n: v.double() for n, v in tensors.items()}
    modules, _ = hs.load_foreign(doubled)
    assert modules["L0a"].bias.dtype == torch.float64


def test_own_modules_go_out() -> None:
    site = hnn.HyperConnection(torch.nn.Identity(), connection="liger", n_streams=4, width=5)
    again, _ = hs.load_foreign(hs.to_foreign(site, "liger"))
    assert torch.equal(again["site"].phi, site.connection.phi)
    shape: dict[str, Any] = {
        "n_layer": 1,
        "n_head": 2,
        "width": 8,
        "vocab_size": 5,
        "block_size": 4,
    }
    config = hs.GPTConfig(**shape, connection="deepseek_v4", reduce="weighted")
    written = hs.to_foreign(hs.GPT(config), "deepseek_v4")
    assert sum(name.startswith("model.hc_head.") for name in written) == 3
    assert len(written) == 9
    with pytest.raises(ValueError, match="model: expected a Connection"):
        hs.to_foreign(torch.nn.Linear(2, 2), "liger")
    with pytest.raises(ValueError, match="expected sites named L0a"):
        hs.to_foreign(hnn.Connection(connection="megatron", n_streams=2, width=2), "megatron")
    with pytest.raises(ValueError, match=r"target: expected one of .* \(did you mean 'liger'\?\)"):
        hs.to_foreign(site, "ligr")
    with pytest.raises(ValueError, match="liger: there is no head there, got 'head'"):
        hs.to_foreign(hs.GPT(dataclasses.replace(config, connection="liger")), "liger")
    megatron = hs.GPT(dataclasses.replace(config, connection="megatron"))
    with pytest.raises(ValueError, match="layernorm_epsilon: expected 1e-05 in the head, got"):
        hs.to_foreign(megatron, "megatron")
    written = hs.to_foreign(megatron, "megatron", config={"layernorm_epsilon": 1e-6})
    assert "decoder.hc_head_fn" in written
    with pytest.raises(TypeError, match="model: expected a GPT"):
        hs.to_foreign(site, "nanogpt")


def test_bad_tensors() -> None:
    good = deepseek("model.layers.0.attn_hc.")
    with pytest.raises(ValueError, match=r"unknown tensors: model.layers.0.attn_hc.norm.weight"):
        hs.load_foreign({**good, "model.layers.0.attn_hc.norm.weight": rand(12)})
    with pytest.raises(ValueError, match=r"model.layers.0.attn_hc.: missing base"):
        hs.load_foreign({n: v for n, v in good.items() if not n.endswith("base")})
    with pytest.raises(ValueError, match=r"biases: expected n \(n \+ 2\) of them, got 14"):
        hs.load_foreign({**good, "model.layers.0.attn_hc.base": rand(14)})
    with pytest.raises(ValueError, match=r"scale: expected shape \[3\], got \[2\]"):
        hs.load_foreign({**good, "model.layers.0.attn_hc.scale": rand(2)})
    with pytest.raises(ValueError, match=r"hc_head: missing scale"):
        hs.load_foreign({"hc_head_fn": rand(2, 4), "hc_head_base": rand(2)})
    views = SITES["lucidrains_mhc"][0] | {"static_alpha": rand(4, 6)}
    with pytest.raises(ValueError, match=r"static_alpha: expected shape \[4, 5\]"):
        hs.load_foreign(views)
    with pytest.raises(ValueError, match="expected tensors of one of nanogpt, deepseek_v4"):
        hs.load_foreign({"weight": rand(2)})
    with pytest.raises(TypeError, match="expected a tensor, got int"):
        hs.load_foreign({"weight": 3})
    with pytest.raises(ValueError, match=r"source: expected one of .*got 'deepsek_v4'"):
        hs.load_foreign(good, source="deepsek_v4")
    with pytest.raises(ValueError, match="no tensors of 'liger' in the checkpoint"):
        hs.load_foreign(good, source="liger")
