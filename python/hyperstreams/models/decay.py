"""Weight decay of connection parameters: policies as data, and what decay does on its own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._errors import check_choice
from ..nn import FullPrecisionModule
from ..nn.precision import Role


@dataclass(frozen=True)
class DecayPolicy:
    """Which parameters of connections, expansion and reduction are decayed.

    summary : one line.
    decayed : roles of parameters, which modules state (``FullPrecisionModule.role``).
        ``"controller"``: projections of the state to logits: ``phi``, xHC's ``read_phi`` and
        ``route``, the queries of attention residuals, the keys of the residual matrix.
        ``"matrix_static"``: static logits that the released code keeps in a matrix (HC, mHC, some
        dialects). ``"static"``: other weights that do not depend on the token: those of the other
        connections, ``read``, ``mix`` and ``write`` of segments (2511.11238 has the virtual width
        network's without decay; Frac's are taken alike), the scalars of AltUp, DenseFormer's
        averages. ``"ends"``: matrices of expansion and reduction, Learned Stream Scaling among
        them; ``"ends_vector"``: their vectors. ``"scale"``: alpha, ReZero's too, and the weights
        and biases of norms.
    """

    summary: str
    decayed: frozenset[Role]


DECAY_POLICIES: dict[str, DecayPolicy] = {
    "no_decay": DecayPolicy(
        "none: decay alone moves static logits of -8 and a scale of 0.6 towards 0", frozenset()
    ),
    "dynamic": DecayPolicy(
        "the projections alone, as HC (2409.19606) has it", frozenset({"controller"})
    ),
    "paper": DecayPolicy(
        "what has two or more dimensions in the released code of 2606.03483: the projections, "
        "Learned Stream Scaling, the static logits of HC and mHC",
        frozenset({"controller", "matrix_static", "ends"}),
    ),
    "all": DecayPolicy(
        "everything",
        frozenset({"controller", "matrix_static", "static", "ends", "ends_vector", "scale"}),
    ),
}
"""Policies by name. Under ``"paper"`` the write logits of HC and mHC, a vector apart in the
released code, are decayed with the other static logits, whose vector they share here."""


def parameter_groups(
    model: nn.Module, *, weight_decay: float = 0.1, connection_policy: str = "no_decay"
) -> list[dict[str, Any]]:
    """Groups for AdamW, each with ``name``, ``params`` and ``weight_decay``.

    Branch and embedding parameters: ``decay`` (two or more dimensions) and ``no_decay``.
    Parameters of connections, expansion and reduction: ``connection_decay`` and ``connection``,
    by the policy of that name in :data:`DECAY_POLICIES`.
    """
    check_choice("parameter_groups", "connection_policy", connection_policy, DECAY_POLICIES)
    decayed_roles = DECAY_POLICIES[connection_policy].decayed
    groups: dict[str, list[nn.Parameter]] = {
        name: [] for name in ("decay", "no_decay", "connection_decay", "connection")
    }
    for owner in model.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if isinstance(owner, FullPrecisionModule):
                decays = owner.role(name) in decayed_roles
                groups["connection_decay" if decays else "connection"].append(parameter)
            else:
                groups["decay" if parameter.ndim >= 2 else "no_decay"].append(parameter)
    return [
        {
            "name": name,
            "params": parameters,
            "weight_decay": weight_decay if name in ("decay", "connection_decay") else 0.0,
        }
        for name, parameters in groups.items()
        if parameters
    ]


def decay_factor(learning_rates: Iterable[float], weight_decay: float) -> float:
    """What AdamW leaves of a parameter without gradient: ``prod_t (1 - lr_t weight_decay)``."""
    return math.prod(1.0 - rate * weight_decay for rate in learning_rates)


@torch.no_grad()
def decay_only(
    model: nn.Module,
    *,
    learning_rates: Iterable[float],
    weight_decay: float = 0.1,
    connection_policy: str = "no_decay",
) -> nn.Module:
    """Multiply every decayed parameter by :func:`decay_factor`, in place; return the model.

    Applied to a model at its initial values this is the null of every claim about what a
    connection learned: where it would stand after the same schedule had no gradient ever come.
    Under ``"paper"`` decay alone moves a logit of -8 to -5.8 in the published medium recipe of
    10,000 steps, which multiplies mHC's off-diagonal mass by nine (2606.03483's code).
    """
    factor = decay_factor(learning_rates, weight_decay)
    for group in parameter_groups(
        model, weight_decay=weight_decay, connection_policy=connection_policy
    ):
        if group["weight_decay"]:
            for parameter in group["params"]:
                parameter.mul_(factor)
    return model
