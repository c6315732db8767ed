"""Post-Norm: the norm stands on the residual stream, after every addition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from ..family import ConnectionFamily, Plan


class PostNormSite(nn.Module):
    """``norm(alpha h + branch(h))`` on ``[..., C]``; the branch sees the normalised stream."""

    def __init__(
        self, branch: Callable[..., Tensor], norm: nn.Module, *, alpha: float = 1.0
    ) -> None:
        super().__init__()
        self.branch = branch
        self.norm = norm
        self.alpha = alpha

    def forward(self, h: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``norm(alpha h + branch(h, *args, **kwargs))``."""
        y = self.branch(h, *args, **kwargs)
        return self.norm(h + y if self.alpha == 1.0 else self.alpha * h + y)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:.4g}"


class PostNorm(ConnectionFamily):
    """``h <- norm(h + F(h))``. The last site's norm is the final norm."""

    branch_norm: ClassVar[bool] = False

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        return 0

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return PostNormSite(branch, plan.make_norm(plan.width))

    def build_reduce(self, plan: Plan) -> nn.Module:
        return nn.Identity()


CONNECTIONS = (PostNorm("post_norm", "Post-Norm residual connection: norm(h + branch(h))"),)
