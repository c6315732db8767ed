"""Whole models of the nanoGPT forks: hc-stream-collapse, mHC-lite's and those made from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models import GPT, GPTConfig
from ..nn import get_connection
from .checkpoint import Checkpoint
from .modules import full_state, read_site, sites_of, target_layout, unknown_names
from .report import ForeignReport
from .sources import SOURCES

NAME = "nanogpt"
TEXT = "models of hc-stream-collapse, mhc-lite and KromHC ({'model': ..., 'model_args': ...})"

_BRANCH = {
    "a": {"0": "norm", "1.c_attn": "qkv", "1.c_proj": "output"},
    "m": {"0": "norm", "1.c_fc": "hidden", "1.c_proj": "output"},
}
_PARTS = {"attn": "a", "mlp": "m"}
_ENDS = {
    "transformer.wte.weight": "token_embedding.weight",
    "transformer.wpe.weight": "position_embedding.weight",
}
_RELEASED: dict[str, tuple[Any, ...]] = {
    "norm": ("layer",),
    "position": ("learned",),
    "mlp": ("gelu",),
    "tied_embeddings": (True,),
}
_RELEASED_STREAMS: dict[str, tuple[Any, ...]] = {
    "reduce": ("sum",),
    "final_norm": ("before_reduce",),
    "expand": ("replicate", "learned_scale"),
}
_BLOCK = re.compile(r"transformer\.h\.(\d+)\.(hc|branch)_(attn|mlp)\.(.+)")
_CONNECTION_TYPES = {
    "lucidrains_hc": "hc",
    "mhc": "mhc",
    "mhc_lite": "mhc_lite",
    "kromhc": "kromhc",
}


def is_nanogpt(names: Mapping[str, Any]) -> bool:
    """Whether the names are those of the forks' GPT."""
    return "transformer.wte.weight" in names and any(_BLOCK.match(name) for name in names)


class _Names:
    """Foreign names, each tensor once: the forks store a branch and the expansion repeatedly."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.plain: dict[str, str] = {}
        self.sites: dict[str, dict[str, str]] = {}
        self.unknown: list[str] = []
        self.masks: list[str] = []
        self.aliases: list[tuple[str, str]] = []
        for name in checkpoint.readers:
            self._sort(name)
        for first, second in self.aliases:
            if not torch.equal(checkpoint.tensor(first), checkpoint.tensor(second)):
                raise ValueError(
                    f"load_foreign: {second}: expected the same values as {first}, which it is "
                    "another name of"
                )

    def _add(self, ours: str, name: str) -> None:
        first = self.plain.setdefault(ours, name)
        if first != name:
            self.aliases.append((first, name))

    def _sort(self, name: str) -> None:
        block = _BLOCK.fullmatch(name)
        expansion = re.fullmatch(r"(transformer\.h\.\d+\.)?expand_stream\.lss", name)
        final = re.fullmatch(r"transformer\.ln_f\.(weight|bias)", name)
        if name in _ENDS:
            self._add(_ENDS[name], name)
        elif name == "lm_head.weight":
            self._add("token_embedding.weight", name)
        elif final:
            self._add(f"norm.{final[1]}", name)
        elif expansion:
            self._add("expand.scale", name)
        elif block:
            self._sort_block(name, block)
        else:
            self.unknown.append(name)

    def _sort_block(self, name: str, block: re.Match[str]) -> None:
        layer, kind, part, rest = block.groups()
        site = f"L{layer}{_PARTS[part]}"
        inner = rest if kind == "branch" else rest.removeprefix("branch.")
        if kind == "hc" and not rest.startswith("branch."):
            self.sites.setdefault(site, {})[rest] = name
            return
        module, _, parameter = inner.rpartition(".")
        ours = _BRANCH[_PARTS[part]].get(module)
        if ours is not None and parameter in ("weight", "bias"):
            self._add(f"sites.{site}.branch.{ours}.{parameter}", name)
        elif inner == "1.bias":  # the causal mask of attention without a fused kernel
            self.masks.append(name)
        else:
            self.unknown.append(name)


def convert_nanogpt(
    checkpoint: Checkpoint, settings: Mapping[str, Any], *, strict: bool
) -> tuple[GPTConfig, dict[str, Tensor], ForeignReport]:
    """The configuration and the state dict of our GPT; differentiable in the tensors."""
    report = ForeignReport(NAME)
    names = _Names(checkpoint)
    unknown_names(names.unknown, strict=strict, report=report)
    if "n_head" not in settings:
        raise ValueError(
            "load_foreign: config: expected nanoGPT's model_args with 'n_head', which the tensors "
            "do not tell"
        )
    missing = [name for name, ours in _ENDS.items() if ours not in names.plain]
    if missing:
        raise ValueError(f"load_foreign: missing {', '.join(missing)}")
    state = {ours: checkpoint.tensor(name) for ours, name in names.plain.items()}
    report.mapped.update({name: ours for ours, name in names.plain.items()})
    report.mapped.update({second: report.mapped[first] for first, second in names.aliases})
    report.dropped += names.masks + list(checkpoint.extras)
    connection, n_streams = "residual", 1
    for site_name, group in names.sites.items():
        site = read_site(
            SOURCES["hyper_connections"],
            f"{site_name}.",
            group,
            checkpoint,
            settings,
            strict=strict,
            report=report,
        )
        connection, n_streams = site.config.name, site.n_streams
        if site.config != get_connection(connection):
            raise ValueError(
                f"load_foreign: config: expected the settings of connection {connection!r} as "
                "released; a GPT takes its connection by name"
            )
        for name, value in full_state(site).items():
            state[f"sites.{site_name}.connection.{name}"] = value
    expand = "learned_scale" if "expand.scale" in state else "replicate"
    norm = "reduce" if connection == "residual" else "reduce.norm"
    for parameter in ("weight", "bias"):
        if f"norm.{parameter}" in state:
            state[f"{norm}.{parameter}"] = state.pop(f"norm.{parameter}")
    vocab_size, width = state["token_embedding.weight"].shape
    layers = {int(match[1]) for name in state if (match := re.match(r"sites\.L(\d+)", name))}
    base = settings.get("expand_lss_init")
    config = GPTConfig(
        vocab_size=vocab_size,
        block_size=state["position_embedding.weight"].shape[0],
        n_layer=len(layers),
        n_head=settings["n_head"],
        width=width,
        connection=connection,
        n_streams=n_streams,
        expand=expand,
        expand_base=base if expand == "learned_scale" else None,
        reduce="sum",
        final_norm="before_reduce",
        bias=f"{norm}.bias" in state,
        dropout=settings.get("dropout", 0.0),
    )
    if connection != "residual":
        report.assumed.append("designated_stream: the largest static read logit of each site")
    return config, state, report


def load_nanogpt(
    checkpoint: Checkpoint, settings: Mapping[str, Any], *, strict: bool
) -> tuple[GPT, ForeignReport]:
    """The model with the checkpoint's weights."""
    config, state, report = convert_nanogpt(checkpoint, settings, strict=strict)
    model = GPT(config, generator=torch.Generator())
    missing = sorted(model.state_dict().keys() - state.keys())
    if missing:
        raise ValueError(f"load_foreign: missing tensors of {', '.join(missing[:8])}")
    model.load_state_dict(state)
    return model, report


def save_nanogpt(model: GPT) -> dict[str, Any]:
    """``{"model": state dict, "model_args": ...}`` as the forks save it."""
    config = model.config
    released = _RELEASED | (_RELEASED_STREAMS if config.has_streams else {})
    released |= {"mlp_width": (None, 4 * config.width), "n_kv_head": (None, config.n_head)}
    for name, expected in released.items():
        if getattr(config, name) not in expected:
            raise ValueError(
                f"to_foreign: {NAME}: {name}: expected {' or '.join(map(repr, expected))}, as "
                f"released, got {getattr(config, name)!r}"
            )
    ours = {name: value.detach() for name, value in model.state_dict().items()}
    state = {theirs: ours[name] for theirs, name in _ENDS.items()}
    state["lm_head.weight"] = ours["token_embedding.weight"]
    norm = "reduce.norm" if config.has_streams else "reduce"
    kind = "none"
    for parameter in ("weight", "bias"):
        if f"{norm}.{parameter}" in ours:
            state[f"transformer.ln_f.{parameter}"] = ours[f"{norm}.{parameter}"]
    connections = sites_of(model)
    for layer in range(config.n_layer):
        for theirs_part, part in _PARTS.items():
            site = f"L{layer}{part}"
            block = f"transformer.h.{layer}."
            for theirs, module in _BRANCH[part].items():
                for parameter in ("weight", "bias"):
                    value = ours.get(f"sites.{site}.branch.{module}.{parameter}")
                    if value is not None:
                        for prefix in (f"branch_{theirs_part}.", f"hc_{theirs_part}.branch."):
                            state[f"{block}{prefix}{theirs}.{parameter}"] = value
            if site in connections:
                layout = target_layout(SOURCES["hyper_connections"], connections[site], {})
                kind = _CONNECTION_TYPES.get(layout.connection, "")
                for tensor, value in layout.save(connections[site]).items():
                    state[f"{block}hc_{theirs_part}.{tensor}"] = value
    if kind == "" or (kind == "none" and config.connection != "residual"):
        raise ValueError(
            f"to_foreign: {NAME}: connection: expected one of residual, "
            f"{', '.join(_CONNECTION_TYPES)}, got {config.connection!r}"
        )
    if config.has_streams and config.expand == "learned_scale":
        prefixes = ["", *(f"transformer.h.{layer}." for layer in range(config.n_layer))]
        state.update({f"{prefix}expand_stream.lss": ours["expand.scale"] for prefix in prefixes})
        if kind != "mhc_lite":
            raise ValueError(
                f"to_foreign: {NAME}: expand: expected 'learned_scale' with 'mhc_lite' alone, "
                f"got it with {config.connection!r}"
            )
        kind = "mhc_lite_lss"
    arguments = {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.width,
        "block_size": config.block_size,
        "bias": config.bias,
        "vocab_size": config.vocab_size,
        "dropout": config.dropout,
        "hyper_conn_n": config.n_streams if config.has_streams else 1,
        "hyper_conn_type": kind,
        "expand_lss_init": config.expand_base if kind == "mhc_lite_lss" else None,
    }
    return {
        "model": {name: value.clone() for name, value in state.items()},
        "model_args": arguments,
    }
