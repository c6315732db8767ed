"""Sinkhorn as each public code base computes it: data, by name."""

from __future__ import annotations

from dataclasses import dataclass

from .sinkhorn import Sinkhorn


@dataclass(frozen=True)
class Dialect:
    """One named set of conventions: a line of text and the settings of :class:`Sinkhorn`."""

    text: str
    mixer: Sinkhorn


_V4_FORM = Sinkhorn(start="softmax", order="rows_first", eps=1e-6, initial=(0.0, 0.0))
_V4 = Sinkhorn(
    start="softmax", order="rows_first", eps=1e-6, orientation="source_rows", initial=(0.0, 0.0)
)

DIALECTS: dict[str, Dialect] = {
    "paper": Dialect("mHC, 2512.24880, eq. 9: columns first, no eps", Sinkhorn()),
    "mhc_lite_repository": Dialect(
        "the mHC of mhc-lite, hc-stream-collapse and KromHC: stored [source, destination], over "
        "sources first",
        Sinkhorn(orientation="source_rows"),
    ),
    "deepseek_v4": Dialect(
        "DeepSeek-V4 (release and Transformers): softmax over destinations + 1e-6, every divisor "
        "+ 1e-6, stored [source, destination]",
        _V4,
    ),
    "megatron": Dialect("Megatron-LM: DeepSeek-V4's", _V4),
    "liger": Dialect(
        "Liger: DeepSeek-V4's steps on a matrix stored [destination, source]", _V4_FORM
    ),
    "transformer_engine": Dialect(
        "TransformerEngine: log domain, no eps, over destinations first, stored "
        "[source, destination]",
        Sinkhorn(order="rows_first", orientation="source_rows"),
    ),
    "lucidrains": Dialect(
        "hyper-connections (lucidrains): over sources first; 1 and 0 as initial logits",
        Sinkhorn(order="rows_first", initial=(1.0, 0.0)),
    ),
    "tokenbender": Dialect(
        "tokenbender: temperature 0.05, 10 rounds, over destinations first, stored "
        "[source, destination]",
        Sinkhorn(iterations=10, order="rows_first", orientation="source_rows", temperature=0.05),
    ),
}
"""Dialects by name; the connections of ``nn.variants.dialects`` use them."""
