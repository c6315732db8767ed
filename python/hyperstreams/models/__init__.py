"""Models built from the modules."""

from .config import GPTConfig
from .decay import DECAY_POLICIES, decay_only, parameter_groups
from .gpt import GPT
from .wrap import wrap_residual

__all__ = [
    "DECAY_POLICIES",
    "GPT",
    "GPTConfig",
    "decay_only",
    "parameter_groups",
    "wrap_residual",
]
