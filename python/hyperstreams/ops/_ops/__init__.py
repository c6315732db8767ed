"""Fused ops: one file per stem with its fakes, batching rules and differentiable form."""

from __future__ import annotations

from typing import Any

from .coefficients import _coefficients
from .expand import _expand
from .mix_write import _mix_write
from .read import _read

RECOMPUTE_CHEAP: tuple[Any, ...] = tuple(
    op for op in (_read, _mix_write, _expand, _coefficients) if op is not None
)
"""Op overloads whose results are cheaper to recompute than to keep, for the policies of selective
activation checkpointing (``torch.utils.checkpoint.create_selective_checkpoint_contexts``).
``project`` is not among them: it reads all streams for a few numbers per token."""
