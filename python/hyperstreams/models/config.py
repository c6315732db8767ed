"""Configuration of the GPT model and the published sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import init
from .._errors import check_choice
from ..nn import CONNECTIONS, check_connection, has_streams
from ..nn.ends import REDUCTIONS
from ..nn.start import STARTS

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"n_layer": 4, "n_head": 4, "width": 96, "block_size": 128, "vocab_size": 256},
    "small": {"n_layer": 6, "n_head": 8, "width": 512, "block_size": 1024, "vocab_size": 50304},
    "medium": {"n_layer": 12, "n_head": 12, "width": 768, "block_size": 1024, "vocab_size": 50304},
    "large": {"n_layer": 24, "n_head": 16, "width": 1024, "block_size": 1024, "vocab_size": 50304},
}
"""Sizes: ``tiny`` trains in minutes on a CPU, the others are those of 2606.03483."""


@dataclass(frozen=True)
class GPTConfig:
    """Everything that defines a :class:`GPT`. Plain values, so that it survives JSON and TOML.

    vocab_size, block_size, n_layer, n_head, width : the transformer.
    connection : name in ``nn.CONNECTIONS``; ``"residual"`` is ``h + branch(h)`` without streams,
        and then the fields below down to ``designate`` have no effect.
    n_streams : number of streams n.
    expand : scheme of ``nn.ExpandStreams``; ``expand_base``, ``expand_noise``,
        ``expand_reference_width`` and ``expand_learned`` are its options.
    reduce : scheme of ``nn.ReduceStreams``.
    final_norm : ``"before_reduce"`` normalises every stream, then reduces (the released code);
        ``"after_reduce"`` reduces, then normalises (HC paper).
    designate : scheme of the streams that sites favour at first; ``"default"`` is the connection's.
    start : ``"published"``, or ``"residual"``: initial coefficients that compute the plain residual
        network exactly, for wrapping a pretrained one (:func:`wrap_residual`); needs ``expand``
        that keeps the mean, ``reduce="mean"`` and ``final_norm="after_reduce"`` to do so.
    controller_std : standard deviation of the initial controller weights ``phi``, published as 0
        for most connections; None: the connection's own.
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
    bias: bool = False
    dropout: float = 0.0
    output_std_factor: float = 1.0

    def __post_init__(self) -> None:
        check_choice("GPTConfig", "connection", self.connection, CONNECTIONS)
        check_choice("GPTConfig", "expand", self.expand, init.EXPANSION_SCHEMES)
        check_choice("GPTConfig", "reduce", self.reduce, REDUCTIONS)
        check_choice("GPTConfig", "final_norm", self.final_norm, ("before_reduce", "after_reduce"))
        schemes = ("default", *init.DESIGNATION_SCHEMES)
        check_choice("GPTConfig", "designate", self.designate, schemes)
        check_choice("GPTConfig", "start", self.start, STARTS)
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "width", "n_streams"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"GPTConfig: {name}: expected at least 1, got {getattr(self, name)}"
                )
        if self.width % self.n_head:
            raise ValueError(
                f"GPTConfig: width: expected a multiple of n_head={self.n_head}, got {self.width}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"GPTConfig: dropout: expected a value in [0, 1), got {self.dropout}")
        check_connection(
            self.connection, width=self.width, n_sites=2 * self.n_layer, n_streams=self.n_streams
        )

    @property
    def has_streams(self) -> bool:
        """Whether the model keeps streams, of which it can collect statistics."""
        return has_streams(self.connection)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> GPTConfig:
        """A published size by name (``tiny small medium large``), with fields replaced."""
        check_choice("GPTConfig.preset", "name", name, PRESETS)
        return cls(**{**PRESETS[name], **overrides})
