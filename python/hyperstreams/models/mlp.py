"""MLPs: GELU, SwiGLU and a small mixture of experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .config import GPTConfig
from .layers import INIT_STD, Branch, Linear, set_normal, xavier


class MLP(Branch):
    """Two layers with GELU: ``output(gelu(hidden(u)))``."""

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__(config, factory)
        self.hidden = Linear(config.width, config.hidden_width, bias=config.bias, **factory)
        self.output = Linear(config.hidden_width, config.width, bias=config.bias, **factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Xavier: both layers with ``gain``."""
        hidden, width = self.hidden.weight.shape
        std = None if gain is None else xavier(width, hidden, gain)
        set_normal(self.hidden, INIT_STD if std is None else std, generator=generator)
        set_normal(self.output, self.output_std if std is None else std, generator=generator)

    def forward(self, u: Tensor) -> Tensor:
        """``[..., C] -> [..., C]``."""
        y = self.output(functional.gelu(self.hidden(self.norm(u))))
        return functional.dropout(y, self.dropout, self.training)


class SwiGLU(MLP):
    """``output(silu(gate) * up)``; ``hidden`` computes gate and up."""

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        Branch.__init__(self, config, factory)
        self.hidden = Linear(config.width, 2 * config.hidden_width, bias=config.bias, **factory)
        self.output = Linear(config.hidden_width, config.width, bias=config.bias, **factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Xavier: gate, up and output are matrices of their own."""
        width, hidden = self.output.weight.shape
        std = None if gain is None else xavier(width, hidden, gain)
        set_normal(self.hidden, INIT_STD if std is None else std, generator=generator)
        set_normal(self.output, self.output_std if std is None else std, generator=generator)

    def forward(self, u: Tensor) -> Tensor:
        """``[..., C] -> [..., C]``."""
        gate, up = self.hidden(self.norm(u)).chunk(2, dim=-1)
        y = self.output(functional.silu(gate) * up)
        return functional.dropout(y, self.dropout, self.training)


class MixtureOfExperts(Branch):
    """``sum_e w_e SwiGLU_e(u)`` over the ``experts_per_token`` experts with the largest weights.

    ``w = softmax(router(u))``, not normalised again over the chosen ones (as in OLMoE, 2409.02060).
    Every expert is computed for every token and those not chosen are weighted 0: two matrix
    products without gathering, deterministic, compiled as they stand, but ``n_experts /
    experts_per_token`` times the arithmetic of a sparse implementation. For small models.
    """

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__(config, factory)
        self.n_experts = config.n_experts
        self.experts_per_token = config.experts_per_token
        total = config.n_experts * config.hidden_width
        self.router = Linear(config.width, config.n_experts, bias=False, **factory)
        self.hidden = Linear(config.width, 2 * total, bias=config.bias, **factory)
        self.output = Linear(total, config.width, bias=config.bias, **factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Xavier: every expert's gate, up and output are matrices of their own."""
        width, total = self.output.weight.shape
        std = None if gain is None else xavier(width, total // self.n_experts, gain)
        set_normal(self.router, INIT_STD, generator=generator)
        set_normal(self.hidden, INIT_STD if std is None else std, generator=generator)
        set_normal(self.output, self.output_std if std is None else std, generator=generator)

    def forward(self, u: Tensor, balance: list[Tensor] | None = None) -> Tensor:
        """``[..., C] -> [..., C]``. ``balance``: the load-balancing loss is appended.

        That is ``n_experts * sum_e f_e p_e``, f the shares of assignments and p the mean weights:
        1 when both are uniform.
        """
        u = self.norm(u)
        weights = torch.softmax(self.router(u).float(), dim=-1)
        chosen = weights.topk(self.experts_per_token, dim=-1).indices
        mask = torch.zeros_like(weights).scatter(-1, chosen, 1.0)
        if balance is not None:
            share = mask.flatten(0, -2).mean(0) / self.experts_per_token
            mean = weights.flatten(0, -2).mean(0)
            balance.append(self.n_experts * (share * mean).sum())
        gate, up = self.hidden(u).chunk(2, dim=-1)
        experts = (functional.silu(gate) * up).unflatten(-1, (self.n_experts, -1))
        experts = experts * (mask * weights).unsqueeze(-1).to(experts.dtype)
        y = self.output(experts.flatten(-2))
        return functional.dropout(y, self.dropout, self.training)
