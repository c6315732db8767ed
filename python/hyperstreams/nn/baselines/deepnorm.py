"""DeepNorm (2203.00555): Post-Norm with an enlarged residual and smaller branches."""

from __future__ import annotations

from torch import nn

from ..family import Plan
from .post_norm import PostNorm, PostNormSite


class DeepNorm(PostNorm):
    """``h <- norm(alpha h + F(h))`` with ``alpha = (2 L)^(1/4)`` for a decoder of L blocks.

    Branches start Xavier-normal, with gain ``beta = (8 L)^(-1/4)`` on values, outputs and MLPs and
    gain 1 on queries and keys.
    """

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        # n_sites is 2 L.
        return PostNormSite(branch, plan.make_norm(plan.width), alpha=plan.n_sites**0.25)

    def branch_gain(self, plan: Plan) -> float:
        return (4 * plan.n_sites) ** -0.25


CONNECTIONS = (DeepNorm("deepnorm", "DeepNorm, 2203.00555 (decoder-only constants)"),)
