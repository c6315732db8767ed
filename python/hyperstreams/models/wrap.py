"""A trained residual model as the start of a multi-stream one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .gpt import GPT

FIXED = ("start", "expand", "reduce", "final_norm", "controller_std")
"""Fields of the config that must have certain values for the logits to stay."""


def wrap_residual(
    model: GPT,
    *,
    connection: str = "mhc_lite",
    n_streams: int = 4,
    generator: torch.Generator | None = None,
    **overrides: Any,
) -> GPT:
    """A multi-stream model with the weights of a residual one, and its logits to rounding.

    The streams are copies of the embedding, every coefficient starts at
    ``nn.residual_start``, and the mean of the streams is normalised and unembedded.
    ``generator`` draws the designated streams, ``overrides`` are other fields of
    :class:`GPTConfig`; those that change the branches change the logits too. With the dialects
    that have eps in their divisors the logits drift as :func:`nn.residual_start` says. The given
    model is left as it is; the new one is on its device, in its dtype and mode.

    Raises ValueError for a model whose connection is not ``"residual"``, for a connection that
    cannot start there, and for overrides of what the logits rest on: ``start``, ``expand``,
    ``reduce``, ``final_norm`` and ``controller_std``.
    """
    if model.config.connection != "residual":
        raise ValueError(
            f"wrap_residual: model: expected connection 'residual', got {model.config.connection!r}"
        )
    fields = {
        "connection": connection,
        "n_streams": n_streams,
        "expand": "replicate",
        "reduce": "mean",
        "final_norm": "after_reduce",
        "start": "residual",
    }
    for name, value in overrides.items():
        if name in FIXED:
            raise ValueError(
                f"wrap_residual: {name}: expected no override, which would change the logits, "
                f"got {value!r}"
            )
    config = replace(model.config, **{**fields, **overrides})
    weight = model.token_embedding.weight
    wrapped = GPT(config, generator=generator, device=weight.device, dtype=weight.dtype)
    own = {
        f"reduce.norm.{name.removeprefix('reduce.')}" if name.startswith("reduce.") else name: value
        for name, value in model.state_dict().items()
    }
    # What is missing there is the connections' own.
    wrapped.load_state_dict({**wrapped.state_dict(), **own})
    return wrapped.train(model.training)
