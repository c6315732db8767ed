"""vmap rules of raw ops: a batch axis becomes one more token axis where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PerToken:
    """An argument ``[tokens..., *inner]`` with ``inner`` trailing axes."""

    inner: int


@dataclass(frozen=True)
class Coefficient:
    """An argument ``[tokens..., *inner]``, or static ``[*inner]``."""

    inner: int


Fold = tuple[PerToken | Coefficient | None, ...]
"""One role per argument, the first one PerToken; None is a parameter or a number."""

Rule = Callable[..., tuple[Any, Any]]


def _batched(in_dim: object) -> bool:
    """A list of numbers has a list of None as its ``in_dim``."""
    return isinstance(in_dim, int)


def one_by_one(op: Callable[..., Any]) -> Rule:
    """Runs ``op`` on each element of the batch."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        results = [
            op(*[a.select(d, k) if _batched(d) else a for a, d in zip(args, in_dims, strict=True)])
            for k in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(r) for r in zip(*results, strict=True)), (0,) * len(results[0])

    return rule


def folding(op: Callable[..., Any], fold: Fold) -> Rule:
    """Runs ``op`` once, the batch axis before the token axes; batched parameters one by one."""

    first = fold[0]
    assert isinstance(first, PerToken)

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        if any(role is None and _batched(d) for role, d in zip(fold, in_dims, strict=True)):
            return one_by_one(op)(info, in_dims, *args)
        batch = info.batch_size
        x, batched = args[0], in_dims[0] is not None
        tokens = list((x.movedim(in_dims[0], 0)[0] if batched else x).shape)[: -first.inner]
        folded = []
        for a, d, role in zip(args, in_dims, fold, strict=True):
            if role is None or a is None:
                folded.append(a)
                continue
            static = isinstance(role, Coefficient) and a.dim() - (d is not None) == role.inner
            if d is not None:
                a = a.movedim(d, 0)
                if static:
                    inner = a.shape[1:]
                    a = a.reshape(batch, *[1] * len(tokens), *inner)
                    a = a.expand(batch, *tokens, *inner)
            elif not static:
                a = a.expand(batch, *a.shape)
            folded.append(a)
        results = op(*folded)
        if isinstance(results, Tensor):
            return results, 0
        # An output that stands for an absent one has no token axes.
        batched_results = tuple(
            r if r.shape[:1] == (batch,) else r.expand(batch, *r.shape) for r in results
        )
        return batched_results, (0,) * len(results)

    return rule
