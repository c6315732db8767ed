"""mHC (2512.24880) as other public code bases write it; ``mixers.DIALECTS`` has the Sinkhorns."""

from __future__ import annotations

from ...mixers import DIALECTS, Free
from ...ops import Activation
from ..config import ConnectionConfig

_SIGMOID_EPS = Activation("sigmoid", offset=1e-6)
_SOFTMAX = Activation("softmax")
_TANH = Activation("tanh", form="outside")
_FLOAT32_EPS = 2.0**-23

CONNECTIONS = (
    ConnectionConfig(
        name="mhc_paper",
        paper="mHC, 2512.24880; initial phi, biases and norm eps unpublished: those of 'mhc' here",
        mixer=DIALECTS["paper"].mixer,
        final_norm="after_reduce",
    ),
    ConnectionConfig(
        name="deepseek_v4",
        paper="DeepSeek-V4; its own initial values are unpublished: those of Transformers here",
        mixer=DIALECTS["deepseek_v4"].mixer,
        read_activation=_SIGMOID_EPS,
        alpha=1.0,
        read_bias=(0.0, 0.0),
        write_bias=(0.0, 0.0),
        phi_init=0.02,
        designate="none",
        reduce="weighted",
        final_norm="after_reduce",
    ),
    ConnectionConfig(
        name="megatron",
        paper="mHC in Megatron-LM",
        mixer=DIALECTS["megatron"].mixer,
        eps_position="outside",
        read_activation=_SIGMOID_EPS,
        read_bias=(0.0, 0.0),
        write_bias=(0.0, 0.0),
        phi_init="xavier",
        designate="none",
        reduce="weighted",
        final_norm="after_reduce",
    ),
    ConnectionConfig(
        name="liger",
        paper="mHC in Liger-Kernel",
        mixer=DIALECTS["liger"].mixer,
        alpha=1.0,
        read_bias=(0.0, 0.0),
        write_bias=(0.0, 0.0),
        phi_init=0.02,
        designate="none",
    ),
    ConnectionConfig(
        name="transformer_engine",
        paper="mHC in TransformerEngine (n = 4 there); no initial values there: those of 'mhc'",
        mixer=DIALECTS["transformer_engine"].mixer,
        eps=_FLOAT32_EPS,
    ),
    ConnectionConfig(
        name="lucidrains_hc",
        paper="HyperConnections of the package hyper-connections, after 2409.19606",
        mixer=Free(),
        norm="per_stream",
        norm_weight=True,
        eps=1e-12,
        eps_position="floor",
        read_activation=_TANH,
        write_activation=_TANH,
        mix_activation=_TANH,
        alpha_groups=(0, 1, 0),
        read_bias=(0.0, 1.0),
        write_bias=(1.0, 1.0),
        static_decay=True,
        final_norm="after_reduce",
    ),
    ConnectionConfig(
        name="lucidrains_mhc",
        paper="ManifoldConstrainedHyperConnections of the package hyper-connections",
        mixer=DIALECTS["lucidrains"].mixer,
        norm="per_stream",
        norm_weight=True,
        eps=1e-12,
        eps_position="floor",
        read_bias=(0.0, 1.0),
        write_bias=(1.0, 1.0),
        static_decay=True,
        final_norm="after_reduce",
    ),
    ConnectionConfig(
        name="tokenbender",
        paper="mHC of tokenbender: static coefficients, softmax read and write",
        mixer=DIALECTS["tokenbender"].mixer,
        norm="none",
        read_activation=_SOFTMAX,
        write_activation=_SOFTMAX,
        read_bias=(-8.0, 0.0),
        write_bias=(0.0, 0.0),
        static_decay=True,
    ),
)
