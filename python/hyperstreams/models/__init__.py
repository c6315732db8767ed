"""Models built from the modules."""

from .config import GPTConfig
from .gpt import GPT
from .wrap import wrap_residual

__all__ = ["GPT", "GPTConfig", "wrap_residual"]
