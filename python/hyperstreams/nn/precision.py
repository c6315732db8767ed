"""Parameters that stay in full precision when a model is cast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

Role = Literal["controller", "matrix_static", "static", "ends", "ends_vector", "scale"]
"""What a parameter of a connection is; ``models.DecayPolicy`` describes them."""
Roles = Mapping[str, Role]


def full_precision(dtype: torch.dtype | None) -> torch.dtype:
    """float64 for float64 (the default dtype where None), float32 for everything else."""
    return torch.float64 if (dtype or torch.get_default_dtype()) == torch.float64 else torch.float32


class FullPrecisionModule(nn.Module, ABC):
    """A module whose own parameters and buffers are float32 or float64, never lower.

    ``.bfloat16()``, ``.half()`` and ``.to(torch.bfloat16)`` on it, or on a model that contains it,
    move them but leave their dtype; ``.double()`` and ``.float()`` work as usual. Child modules are
    cast as in any module. All parameters of connections live in such modules.

    roles : role of parameters by name, for weight decay; ``"static"`` where not named.
    """

    roles: ClassVar[Roles] = {}

    def role(self, name: str) -> Role:
        """The role of this module's own parameter ``name``."""
        return self.roles.get(name, "static")

    @abstractmethod
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set the initial values of this module's own parameters."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.is_floating_point() and moved.dtype not in (torch.float32, torch.float64):
                return tensor.to(moved.device)
            return moved

        if recurse:
            for child in self.children():
                child._apply(fn)
        return super()._apply(keep, recurse=False)
