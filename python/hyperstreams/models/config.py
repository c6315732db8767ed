"""Configuration of the GPT model and the published sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .. import init
from .._errors import check_choice
from ..nn import (
    CONNECTIONS,
    ConnectionConfig,
    check_connection,
    connection_uses,
    find_connection,
    has_streams,
)
from ..nn.ends import REDUCTIONS
from ..nn.start import STARTS

_OLMO = {
    "vocab_size": 50304,
    "norm": "parameter_free",
    "position": "rope",
    "mlp": "swiglu",
    "block_size": 2048,
}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"n_layer": 4, "n_head": 4, "width": 96, "block_size": 128, "vocab_size": 256},
    "small": {"n_layer": 6, "n_head": 8, "width": 512, "block_size": 1024, "vocab_size": 50304},
    "medium": {"n_layer": 12, "n_head": 12, "width": 768, "block_size": 1024, "vocab_size": 50304},
    "large": {"n_layer": 24, "n_head": 16, "width": 1024, "block_size": 1024, "vocab_size": 50304},
    "olmo_1b": {**_OLMO, "n_layer": 16, "n_head": 16, "width": 2048, "mlp_width": 8192},
    "olmo_7b": {
        **_OLMO,
        "n_layer": 32,
        "n_head": 32,
        "width": 4096,
        "mlp_width": 11008,
        "tied_embeddings": False,
    },
    "olmoe_like": {
        **_OLMO,
        "n_layer": 16,
        "n_head": 16,
        "width": 2048,
        "block_size": 4096,
        "norm": "rms",
        "mlp": "moe",
        "mlp_width": 1024,
        "n_experts": 64,
        "experts_per_token": 8,
        "tied_embeddings": False,
    },
}
"""Sizes: ``tiny`` trains in minutes on a CPU; ``small``, ``medium`` and ``large`` are those of
2606.03483; ``olmo_1b`` and ``olmo_7b`` those of OLMo, on which HC (2409.19606) was measured, and
``olmoe_like`` that of OLMoE-1B-7B without its norms of queries and keys. The last three are meant
for the meta device: parameter and FLOP tables (``models.size``)."""

NORMS = ("layer", "rms", "parameter_free")
POSITIONS = ("learned", "rope")
MLPS = ("gelu", "swiglu", "moe")

_EXPAND = ("expand", "expand_base", "expand_noise", "expand_reference_width", "expand_learned")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "expand": _EXPAND,
    "reduce": ("reduce",),
    "designate": ("designate",),
    "start": ("start",),
    "phi_std": ("controller_std",),
}
"""Fields by what a connection uses (``nn.connection_uses``)."""


@dataclass(frozen=True)
class GPTConfig:
    """Everything that defines a :class:`GPT`. Plain values, so that it survives JSON and TOML.

    vocab_size, block_size, n_layer, n_head, width : the transformer.
    connection : name in ``nn.CONNECTIONS``; ``"residual"`` is ``h + branch(h)`` without streams.
        Other values than the defaults of ``expand...``, ``reduce``, ``designate``, ``start`` and
        ``controller_std`` are refused for connections that do not use them
        (``nn.connection_uses``), among them all without streams.
    n_streams : number of streams n; without effect for connections without streams.
    expand : scheme of ``nn.ExpandStreams``; ``expand_base``, ``expand_noise``,
        ``expand_reference_width`` and ``expand_learned`` are its options.
    reduce : scheme of ``nn.ReduceStreams``.
    final_norm : ``"before_reduce"`` normalises every stream, then reduces (the released code);
        ``"after_reduce"`` reduces, then normalises (HC paper). Either may be ``"published"``: as
        the models that the connection was published with end (``ConnectionConfig.reduce``).
        Connections that do not use ``reduce`` have one place for the norm and take any.
    designate : scheme of the streams that sites favour at first; ``"default"`` is the connection's.
    start : ``"published"``, or ``"residual"``: initial coefficients that compute the plain residual
        network, up to rounding and a dialect's eps, for wrapping a pretrained one
        (:func:`wrap_residual`); needs ``expand`` that keeps the mean, ``reduce="mean"`` and
        ``final_norm="after_reduce"`` to do so.
    controller_std : standard deviation of the initial controller weights ``phi``, published as 0
        for most connections; None: the connection's own.
    norm : ``"layer"``, ``"rms"``, or ``"parameter_free"`` (a layer norm without weights, OLMo's).
    position : ``"learned"`` embeddings or ``"rope"`` (rotary, with ``rope_base``).
    mlp : ``"gelu"``, ``"swiglu"`` or ``"moe"`` (SwiGLU experts).
    mlp_width : hidden channels (of one expert). None: 4 C with GELU; 8/3 C rounded up to a multiple
        of 8 with SwiGLU, shared among the active experts with ``"moe"``.
    n_experts, experts_per_token, balance_loss : of ``"moe"``; the last is the factor of the
        load-balancing loss, which is part of the loss in training mode only.
    n_kv_head : heads of keys and values, shared by groups of query heads; None: n_head.
    tied_embeddings : token embeddings are the output weights.
    bias : linear layers and layer norms have biases.
    dropout : of attention, branch outputs and embeddings; draws from PyTorch's global generator.
    output_std_factor : multiplies the initial standard deviation of the branches' output
        projections (HC, 2409.19606, scales it by sqrt(n), in a direction that is unclear: off).
    """

    vocab_size: int = 256
    block_size: int = 128
    n_layer: int = 4
    n_head: int = 4
    width: int = 96
    connection: str = "mhc_lite"
    n_streams: int = 4
    expand: str = "replicate"
    expand_base: float | None = None
    expand_noise: float | None = None
    expand_reference_width: int | None = None
    expand_learned: bool | None = None
    reduce: str = "sum"
    final_norm: str = "before_reduce"
    designate: str = "default"
    start: str = "published"
    controller_std: float | None = None
    norm: str = "layer"
    position: str = "learned"
    rope_base: float = 10000.0
    mlp: str = "gelu"
    mlp_width: int | None = None
    n_experts: int = 8
    experts_per_token: int = 2
    balance_loss: float = 0.01
    n_kv_head: int | None = None
    tied_embeddings: bool = True
    bias: bool = False
    dropout: float = 0.0
    output_std_factor: float = 1.0

    def __post_init__(self) -> None:
        check_choice("GPTConfig", "connection", self.connection, CONNECTIONS)
        check_choice("GPTConfig", "expand", self.expand, init.EXPANSION_SCHEMES)
        check_choice("GPTConfig", "reduce", self.reduce, (*REDUCTIONS, "published"))
        positions = ("before_reduce", "after_reduce", "published")
        check_choice("GPTConfig", "final_norm", self.final_norm, positions)
        check_choice("GPTConfig", "norm", self.norm, NORMS)
        check_choice("GPTConfig", "position", self.position, POSITIONS)
        check_choice("GPTConfig", "mlp", self.mlp, MLPS)
        schemes = ("default", *init.DESIGNATION_SCHEMES)
        check_choice("GPTConfig", "designate", self.designate, schemes)
        check_choice("GPTConfig", "start", self.start, STARTS)
        sizes = ("vocab_size", "block_size", "n_layer", "n_head", "width", "n_streams", "mlp_width")
        for name in (*sizes, "n_kv_head", "n_experts", "experts_per_token"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"GPTConfig: {name}: expected at least 1, got {value}")
        if self.width % self.n_head:
            raise ValueError(
                f"GPTConfig: width: expected a multiple of n_head={self.n_head}, got {self.width}"
            )
        if self.n_kv_head is not None and self.n_head % self.n_kv_head:
            raise ValueError(
                f"GPTConfig: n_kv_head: expected a divisor of n_head={self.n_head}, "
                f"got {self.n_kv_head}"
            )
        if self.position == "rope" and self.width // self.n_head % 2:
            raise ValueError(
                "GPTConfig: position: 'rope' expects an even head width, "
                f"got width / n_head = {self.width // self.n_head}"
            )
        if self.experts_per_token > self.n_experts:
            raise ValueError(
                f"GPTConfig: experts_per_token: expected at most n_experts={self.n_experts}, "
                f"got {self.experts_per_token}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"GPTConfig: dropout: expected a value in [0, 1), got {self.dropout}")
        uses = connection_uses(self.connection)
        for option, names in _OPTIONS.items():
            for name in names:
                value, default = getattr(self, name), getattr(GPTConfig, name)
                if option not in uses and value not in (default, "published"):
                    raise ValueError(
                        f"GPTConfig: {name}: expected {default!r} with connection "
                        f"{self.connection!r}, which does not use it, got {value!r}"
                    )
        check_connection(
            self.connection, width=self.width, n_sites=2 * self.n_layer, n_streams=self.n_streams
        )

    @property
    def ends(self) -> tuple[str, str]:
        """``reduce`` and ``final_norm`` with the connection's own in place of ``"published"``."""
        connection = find_connection(self.connection)
        own = ("sum", "before_reduce")
        if isinstance(connection, ConnectionConfig):
            own = (connection.reduce, connection.final_norm)
        given = (self.reduce, self.final_norm)
        reduce, final_norm = (o if g == "published" else g for o, g in zip(own, given, strict=True))
        return reduce, final_norm

    @property
    def has_streams(self) -> bool:
        """Whether the model keeps streams, of which it can collect statistics."""
        return has_streams(self.connection)

    @property
    def hidden_width(self) -> int:
        """Hidden channels of the MLP, or of one expert."""
        if self.mlp_width is not None:
            return self.mlp_width
        if self.mlp == "gelu":
            return 4 * self.width
        active = self.experts_per_token if self.mlp == "moe" else 1
        return 8 * math.ceil(self.width / (3 * active))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> GPTConfig:
        """A published size by name (a key of ``PRESETS``), with fields replaced."""
        check_choice("GPTConfig.preset", "name", name, PRESETS)
        return cls(**{**PRESETS[name], **overrides})
