"""Where each code base keeps its sites in a checkpoint: names, to and from site names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .fork_sites import FORK_LAYOUTS
from .kernel_sites import DEEPSEEK, LIGER, MEGATRON, TRANSFORMER_ENGINE
from .layout import SiteLayout

HEAD_NAMES = {"fn": "phi", "base": "bias", "scale": "alpha"}


@dataclass(frozen=True)
class Source:
    """One code base's names.

    layouts : how its sites may be stored.
    pattern : a name inside a site, with the groups ``prefix`` and ``tensor``, and ``layer`` and
        ``part`` where names tell them. None: sites are wherever a layout's names are.
    parts : ``part`` to what it is called here, ``a`` (attention) or ``m`` (MLP).
    site_prefix : prefix of a site's names, for writing; of ``layer`` and ``part``.
    head : pattern of the head's names, with the group ``tensor``; ``head_prefix`` for writing.
    head_settings : names of the eps of the head's norm and of its weights.
    kind : the setting that names the layout, where a checkpoint records it.
    inner : what follows a site's prefix in names that belong to the wrapped branch.
    """

    name: str
    text: str
    layouts: tuple[SiteLayout, ...]
    pattern: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    site_prefix: str = "{site}."
    head: str | None = None
    head_prefix: str = ""
    head_settings: tuple[str, str, float] = ("rms_norm_eps", "hc_eps", 1e-6)
    kind: str = ""
    inner: tuple[str, ...] = ()

    def site_of(self, prefix: str) -> str:
        """The name here of the site whose foreign names begin with ``prefix``."""
        match = None if self.pattern is None else re.fullmatch(self.pattern, prefix + "x")
        if match is None:
            return prefix.rstrip(".").replace(".", "_") or "site"
        block = "mtp" if "mtp" in match["prefix"] else "L"
        return f"{block}{match['layer']}{self.parts[match['part']]}"

    def prefix_of(self, site: str) -> str:
        """The foreign prefix of a site; ValueError for a site this code base cannot name."""
        if self.pattern is None:
            return "" if site == "site" else self.site_prefix.format(site=site)
        match = re.fullmatch(r"(L|mtp)(\d+)([am])", site)
        part = {ours: theirs for theirs, ours in self.parts.items()}
        if match is None or (match[1] == "mtp" and "{block}" not in self.site_prefix):
            raise ValueError(
                f"to_foreign: {self.name}: expected sites named L0a, L0m, L1a, ..., got {site!r}"
            )
        block = "mtp" if match[1] == "mtp" else "layers"
        return self.site_prefix.format(block=block, layer=match[2], part=part[match[3]])

    def head_prefix_of(self, name: str) -> str:
        """The foreign prefix of a head; ValueError where this code base has none."""
        if self.head is not None and name == "head":
            return self.head_prefix
        match = re.fullmatch(r"mtp(\d+)head", name)
        if match is None or "{block}" not in self.site_prefix:
            raise ValueError(f"to_foreign: {self.name}: there is no head there, got {name!r}")
        return f"mtp.{match[1]}.{self.head_prefix}"


_LAYER = r"(?P<prefix>(?:.*\.)?layers\.(?P<layer>\d+)\."

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "deepseek_v4",
            "DeepSeek-V4's connections and head, Hugging Face names",
            (DEEPSEEK,),
            pattern=_LAYER + r"(?P<part>attn_hc|ffn_hc)\.)(?P<tensor>.+)",
            parts={"attn_hc": "a", "ffn_hc": "m"},
            site_prefix="model.layers.{layer}.{part}.",
            head=r"(?P<prefix>.*\.|)hc_head\.hc_(?P<tensor>.+)",
            head_prefix="model.hc_head.hc_",
        ),
        Source(
            "deepseek_v4_release",
            "DeepSeek-V4's connections and head, the release's names",
            (DEEPSEEK,),
            pattern=r"(?P<prefix>(?:.*\.)?(?:layers|mtp)\.(?P<layer>\d+)\.hc_(?P<part>attn|ffn)_)"
            r"(?P<tensor>.+)",
            parts={"attn": "a", "ffn": "m"},
            site_prefix="{block}.{layer}.hc_{part}_",
            head=r"(?P<prefix>.*\.|)hc_head_(?P<tensor>.+)",
            head_prefix="hc_head_",
        ),
        Source(
            "megatron",
            "Megatron-LM's HyperConnectionModule and output contraction",
            (MEGATRON,),
            pattern=_LAYER
            + r"(?P<part>self_attention_hyper_connection|mlp_hyper_connection)\.)(?P<tensor>.+)",
            parts={"self_attention_hyper_connection": "a", "mlp_hyper_connection": "m"},
            site_prefix="decoder.layers.{layer}.{part}.",
            head=r"(?P<prefix>.*\.|)hc_head_(?P<tensor>.+)",
            head_prefix="decoder.hc_head_",
            head_settings=("layernorm_epsilon", "layernorm_epsilon", 1e-5),
        ),
        Source(
            "hyper_connections",
            "modules of hyper-connections (lucidrains) and of its forks",
            FORK_LAYOUTS,
            kind="hyper_conn_type",
            inner=("branch.",),
        ),
        Source("liger", "LigerMHC modules", (LIGER,), inner=("layer.",)),
        Source(
            "transformer_engine",
            "phi, alpha, beta (and norm_weight) as TransformerEngine's functions take them",
            (TRANSFORMER_ENGINE,),
        ),
    )
}
"""Sources of single sites; ``nanogpt`` has the whole models."""
