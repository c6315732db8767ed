"""Models built from the modules."""

from .config import GPTConfig
from .decay import DECAY_POLICIES, decay_only, parameter_groups
from .gpt import GPT
from .size import PUBLISHED_PARAMETERS, operations_table, parameter_table
from .wrap import wrap_residual

__all__ = [
    "DECAY_POLICIES",
    "GPT",
    "PUBLISHED_PARAMETERS",
    "GPTConfig",
    "decay_only",
    "operations_table",
    "parameter_groups",
    "parameter_table",
    "wrap_residual",
]
