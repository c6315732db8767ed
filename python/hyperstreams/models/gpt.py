"""A GPT, after nanoGPT; how its sublayers are connected is one field of the config."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import ops
from ..nn import (
    FullPrecisionModule,
    Plan,
    Streams,
    branch_gain,
    build_expand,
    build_reduce,
    build_site,
    holds_streams,
    streams_of,
)
from ..nn.streams import state_row
from .attention import Attention
from .config import GPTConfig
from .decay import parameter_groups
from .layers import INIT_STD, Branch, Embedding, Linear, make_norm, set_normal
from .mlp import MLP, MixtureOfExperts, SwiGLU

MLPS: dict[str, type[Branch]] = {"gelu": MLP, "swiglu": SwiGLU, "moe": MixtureOfExperts}


class GPT(nn.Module):
    """Decoder-only transformer whose sublayers are sites: ``L0a`` (attention), ``L0m`` (MLP), ...

    ``generator`` determines every initial value: one seed gives the same branches, embeddings and
    (for a given scheme) designated streams for every connection. None is PyTorch's default
    generator. On the meta device call ``to_empty`` and :meth:`reset_parameters` (or load a
    checkpoint) before use. Parameters of connections and of the expansion stay float32 under
    ``dtype`` and casts.
    """

    def __init__(
        self,
        config: GPTConfig,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        device = torch.device(device) if device is not None else torch.get_default_device()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.token_embedding = Embedding(config.vocab_size, config.width, **factory)
        self.position_embedding: Embedding | None = None
        if config.position == "learned":
            self.position_embedding = Embedding(config.block_size, config.width, **factory)
        plan = self._plan(factory)
        self.expand = build_expand(config.connection, plan)
        self.sites = nn.ModuleDict()
        for layer in range(config.n_layer):
            for suffix, branch in (("a", Attention), ("m", MLPS[config.mlp])):
                self.sites[f"L{layer}{suffix}"] = build_site(
                    config.connection,
                    branch(config, factory),
                    site_index=len(self.sites),
                    plan=plan,
                )
        self.reduce = build_reduce(config.connection, plan)
        self.head: Linear | None = None
        if not config.tied_embeddings:
            self.head = Linear(config.width, config.vocab_size, bias=False, **factory)
        self._branch_gain = branch_gain(config.connection, plan)
        # Of connections whose states are no Streams; the others carry their statistics along.
        self.observes = holds_streams(config.connection)
        self.collecting = False
        self.sink: Callable[[Tensor], None] | None = None
        if device.type != "meta":
            self.reset_parameters(generator=generator)

    def _plan(self, factory: dict[str, Any]) -> Plan:
        config = self.config
        return Plan(
            width=config.width,
            n_sites=2 * config.n_layer,
            make_norm=partial(make_norm, config, factory=factory),
            n_head=config.n_head,
            n_kv_head=config.n_kv_head or config.n_head,
            n_streams=config.n_streams,
            designate=config.designate,
            start=config.start,
            phi_std=config.controller_std,
            # Not the default generator: reset_parameters draws what counts.
            generator=torch.Generator(),
            expand={
                "scheme": config.expand,
                "base": config.expand_base,
                "noise": config.expand_noise,
                "reference_width": config.expand_reference_width,
                "learned": config.expand_learned,
            },
            reduce={
                "scheme": config.ends[0],
                "norm_position": config.ends[1].removesuffix("_reduce"),
            },
            factory=factory,
        )

    @property
    def site_names(self) -> list[str]:
        """``["L0a", "L0m", "L1a", ...]`` in order."""
        return list(self.sites)

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set all initial values: embeddings and branches, then connections, then expansion."""
        for embedding in (self.token_embedding, self.position_embedding):
            if embedding is not None:
                set_normal(embedding, INIT_STD, generator=generator)
        for module in self.modules():
            if isinstance(module, Branch):
                module.reset_parameters(gain=self._branch_gain, generator=generator)
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.reset_parameters()
        if self.head is not None:
            set_normal(self.head, INIT_STD, generator=generator)
        for part in (self.sites, self.reduce, self.expand):
            for module in part.modules():
                if isinstance(module, FullPrecisionModule):
                    module.reset_parameters(generator=generator)

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        end = start + tokens.shape[-1]
        if end > self.config.block_size:
            raise ValueError(
                f"GPT: tokens: expected at most block_size={self.config.block_size} positions, "
                f"got {end}"
            )
        h: Tensor = self.token_embedding(tokens)
        if self.position_embedding is not None:
            h = h + self.position_embedding.weight[start:end]
        return functional.dropout(h, self.config.dropout, self.training)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, *, collect_stats: bool = False
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Tensor]:
        """``(logits [B, T, vocab], loss)``, and the stats with ``collect_stats=True``.

        tokens, targets : int64 ``[B, T]``, T at most ``block_size``. loss: mean cross-entropy in
        nats per token, targets of -1 left out; None without targets. In training mode experts add
        ``balance_loss`` times the mean of their load-balancing losses. stats: float64
        ``[sites + 1, ops.stream_stats_size(n)]``, one row of ``ops.stream_stats`` per site (the
        state before it, its branch output and coefficients) and one of the final state. Where a
        connection's states are not ``nn.Streams`` but hold streams (AltUp, ResiDual, ...), only the
        fields of the streams are known and the others nan. Collecting changes no other result.
        """
        if collect_stats and not (self.config.has_streams or self.observes):
            raise ValueError(
                "GPT: collect_stats: expected a connection with streams, "
                f"got {self.config.connection!r}"
            )
        if collect_stats and self.training and getattr(self.reduce, "coefficients_only", False):
            raise RuntimeError(
                "GPT: collect_stats: expected evaluation mode while a probe of coefficients alone "
                "samples the training forwards"
            )
        h = self._embed(tokens, 0)
        carried = self.config.has_streams
        x: Any = self.expand(h, collect_stats=True) if collect_stats and carried else self.expand(h)
        observed: list[Tensor] | None = None
        if not carried and (collect_stats or (self.collecting and self.training)):
            observed = []
            self._observe(x, observed)
        # The experts' load-balancing losses, wanted in training only.
        balance: list[Tensor] = []
        balances = self.training and targets is not None and self.config.mlp == "moe"
        for index, site in enumerate(self.sites.values()):
            x = site(x, balance) if balances and index % 2 else site(x)
            if observed is not None:
                self._observe(x, observed)
        stats = None
        if observed is not None:
            stats = torch.cat(observed)
            if self.sink is not None and self.training:
                self.sink(stats)
        elif collect_stats:
            x = Streams(x.tensor, stats=x.stats)
            stats = torch.cat([x.stats, ops.stream_stats(x.x).unsqueeze(0)])
        h = self.reduce(x)
        logits = self._logits(h)
        loss = None
        if targets is not None:
            loss = functional.cross_entropy(
                logits.flatten(0, -2).float(), targets.flatten(), ignore_index=-1
            )
        if loss is not None and balance:
            loss = loss + self.config.balance_loss * torch.stack(balance).mean()
        return (logits, loss, stats) if collect_stats and stats is not None else (logits, loss)

    def _observe(self, state: Any, rows: list[Tensor]) -> None:
        streams = streams_of(self.config.connection, state)
        assert streams is not None  # holds_streams
        rows.append(state_row(streams))

    def _logits(self, h: Tensor) -> Tensor:
        head = self.token_embedding if self.head is None else self.head
        return functional.linear(h, head.weight)

    def _next_logits(self, tokens: Tensor, caches: list[list[Tensor]]) -> Tensor:
        """Logits ``[B, vocab]`` after the last of the new ``tokens``; extends the caches."""
        h = self._embed(tokens, caches[0][0].shape[2] if caches[0] else 0)
        x = self.expand(h)
        for index, site in enumerate(self.sites.values()):
            x = site(x) if index % 2 else site(x, caches[index // 2])
        return self._logits(self.reduce(x)[:, -1])

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue ``tokens [B, T]`` by sampling; returns ``[B, T + max_new_tokens]``.

        temperature : divides the logits; 0 takes the most likely token. top_k : sample among the k
        most likely. Keys and values of earlier tokens are cached. Once the text is longer than
        ``block_size``, each token is predicted from the last ``block_size`` tokens afresh, because
        positions, learned or kept in the cached keys, do not slide.
        """
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(
                f"GPT.generate: tokens: expected shape [B, T] with T >= 1, got {list(tokens.shape)}"
            )
        if temperature < 0:
            raise ValueError(f"GPT.generate: temperature: expected at least 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"GPT.generate: top_k: expected at least 1, got {top_k}")
        was_training = self.training
        self.eval()
        caches: list[list[Tensor]] = [[] for _ in range(self.config.n_layer)]
        new = tokens[:, -self.config.block_size :]
        try:
            for _ in range(max_new_tokens):
                logits = self._next_logits(new, caches)
                new = sample(logits, temperature=temperature, top_k=top_k, generator=generator)
                tokens = torch.cat([tokens, new], dim=1)
                if caches[0][0].shape[2] == self.config.block_size:
                    caches = [[] for _ in range(self.config.n_layer)]
                    new = tokens[:, -self.config.block_size :]
        finally:
            self.train(was_training)
        return tokens

    def parameter_groups(
        self, *, weight_decay: float = 0.1, connection_policy: str = "no_decay"
    ) -> list[dict[str, Any]]:
        """Groups for AdamW; see :func:`parameter_groups`."""
        return parameter_groups(
            self, weight_decay=weight_decay, connection_policy=connection_policy
        )


def sample(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token per row of ``logits [B, vocab]``, as ``[B, 1]``."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator)
