"""What a model weighs and costs: parameters by part, published counts, operations per token."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

from torch import nn

from ..nn import (
    Connection,
    ConnectionFamily,
    FullPrecisionModule,
    branch_projects,
    find_connection,
)
from .attention import Attention
from .config import GPTConfig
from .gpt import GPT
from .layers import Branch, Embedding

Formula = Callable[[int, int], int]

PARTS = ("embeddings", "attention", "mlp", "norms", "connections", "ends", "head")


def parameter_table(config: GPTConfig) -> dict[str, int]:
    """Parameters by part, and their ``total``. Nothing is allocated, whatever the size.

    ``embeddings``: tokens and learned positions. ``attention``, ``mlp``: with the norms inside
    them. ``norms``: the others. ``connections``: of all sites. ``ends``: of expansion and
    reduction. ``head``: of an untied one.
    """
    model = GPT(config, device="meta")
    table = dict.fromkeys(PARTS, 0)

    def add(module: nn.Module, part: str) -> None:
        for child in module.children():
            inner = part
            if isinstance(child, Branch):
                inner = "attention" if isinstance(child, Attention) else "mlp"
            add(child, inner)
        own = "embeddings" if isinstance(module, Embedding) else part
        if part in ("connections", "ends") and not isinstance(module, FullPrecisionModule):
            own = "norms"
        table[own] += sum(parameter.numel() for parameter in module.parameters(recurse=False))

    for child, part in (
        (model.token_embedding, "embeddings"),
        (model.position_embedding, "embeddings"),
        (model.sites, "connections"),
        (model.expand, "ends"),
        (model.reduce, "ends"),
        (model.head, "head"),
    ):
        if child is not None:
            add(child, part)
    return {**table, "total": sum(table.values())}


def _dynamic(mixer_logits: Callable[[int], int], *, scales: int = 3, norm: bool = True) -> Formula:
    """n C K + K + scales (+ n C), K = 2 n + the mixer's logits: mHC and its descendants."""

    def count(n: int, c: int) -> int:
        logits = 2 * n + mixer_logits(n)
        return n * c * logits + logits + scales + (n * c if norm else 0)

    return count


PUBLISHED_PARAMETERS: dict[str, Formula] = {
    "residual": lambda n, c: 0,
    "hc_static": lambda n, c: n * (n + 2),
    "hc": lambda n, c: c * (n + 2) + n * (n + 2) + 2,
    "mhc": _dynamic(lambda n: n * n),
    "mhc_paper": _dynamic(lambda n: n * n, norm=False),
    "deepseek_v4": _dynamic(lambda n: n * n, norm=False),
    "mhc_lite": _dynamic(factorial),
    "kromhc": _dynamic(lambda n: 2 * (n.bit_length() - 1)),  # n a power of two
    "shc": _dynamic(lambda n: (n - 1) ** 2, scales=5),
    "go_mhc": _dynamic(lambda n: n * (2 * n - 1), norm=False),
    "identity": _dynamic(lambda n: 0, scales=2, norm=False),
    "attention_residual": lambda n, c: 2 * c,
}
"""Extra parameters of one site for n streams of width C, by the papers and the released code.

Two sites are a block. The norm's weight (n C) is counted where the released code has one. OLMo-1B
with n = 4 has 32 sites: 768 extra parameters with ``"hc_static"`` and 394,048 with ``"hc"``, as
printed in 2409.19606. For OLMo-7B (64 sites) that paper prints both "1.3M" and "+0.023 %", which do
not agree with each other: the formula gives 1,574,528, and that is +0.023 % of 6.9e9."""


def operations_table(config: GPTConfig, *, context: int | None = None) -> dict[str, int]:
    """Floating-point operations of one token's forward pass by part, and their ``total``.

    A multiply-add is two. Counted are matrix products, attention scores over a mean causal context
    of ``(context + 1) / 2`` tokens (``context``: block_size by default), the active experts only,
    and of connections the norm's sum of squares, projection, read, mix and write; not counted are
    elementwise functions, norms, residual additions and the maps from logits to coefficients, which
    do not grow with C. HC (n = 4) adds 0.29 % to OLMo-1B and 0.20 % to OLMo-7B without scores; its
    paper prints 0.200 % and 0.147 % and does not say what it counts.

    Raises ValueError for a family of your own that does not define ``operations``.
    """
    context = config.block_size if context is None else context
    c, hidden = config.width, config.hidden_width
    kv_width = c // config.n_head * (config.n_kv_head or config.n_head)
    projections = c * (c + 2 * kv_width) + c * c if branch_projects(config.connection) else 0
    mlp = {
        "gelu": 2 * c * hidden,
        "swiglu": 3 * c * hidden,
        "moe": 3 * c * hidden * config.experts_per_token + c * config.n_experts,
    }[config.mlp]
    table = {
        "attention": config.n_layer * 2 * projections,
        "scores": config.n_layer * 2 * c * (context + 1),
        "mlp": config.n_layer * 2 * mlp,
        "connections": _connection_operations(config, kv_width),
        "head": 2 * c * config.vocab_size,
    }
    return {**table, "total": sum(table.values())}


def _connection_operations(config: GPTConfig, kv_width: int) -> int:
    connection = find_connection(config.connection)
    c, n, sites = config.width, config.n_streams, 2 * config.n_layer
    if isinstance(connection, ConnectionFamily):
        total = connection.operations(width=c, kv_width=kv_width, n_sites=sites, n_streams=n)
        if total is None:
            raise ValueError(
                "operations_table: config: expected a connection whose operations are known, "
                f"got {config.connection!r}"
            )
        return total
    mix = connection.mixer.map(connection.mixer.initial_logits(n), n)
    operations = 2 * n * c + 2 * n * c + (0 if mix is None else 2 * n * n * c)
    site = Connection(connection=connection, n_streams=n, width=c, site_index=0, device="meta")
    if site.phi is not None:
        streams = n if connection.norm == "per_stream" else 1
        operations += 2 * streams * site.phi.numel() + 2 * n * c
    return sites * operations
