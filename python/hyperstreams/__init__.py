"""Multi-stream residual networks (Hyper-Connections) for PyTorch.

``hyperstreams.nn`` holds the modules, ``hyperstreams.ops`` the ops, ``hyperstreams.mixers`` the
families of mixing matrices, ``hyperstreams.init`` the initial values, ``hyperstreams.diagnostics``
what to measure; :class:`GPT` is a model whose residual connection is one field of its config.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import diagnostics, init, interop, mixers, models, nn, ops, train
    from .diagnostics import Probe, intervene
    from .interop import load_foreign, to_foreign
    from .models import GPT, GPTConfig, wrap_residual
    from .nn import permute_streams, recompute
    from .ops import backend_status, set_backend

_MODULES = ("diagnostics", "init", "interop", "mixers", "models", "nn", "ops", "train")
_NAMES = {
    "GPT": ".models",
    "GPTConfig": ".models",
    "Probe": ".diagnostics",
    "backend_status": ".ops",
    "intervene": ".diagnostics",
    "load_foreign": ".interop",
    "permute_streams": ".nn",
    "recompute": ".nn",
    "set_backend": ".ops",
    "to_foreign": ".interop",
    "wrap_residual": ".models",
}

__all__ = ["GPT", "GPTConfig", "Probe", "__version__", "backend_status", "diagnostics", "init"]
__all__ += ["interop", "intervene", "load_foreign", "mixers", "models", "nn", "ops", "train"]
__all__ += ["permute_streams", "recompute", "set_backend", "to_foreign", "wrap_residual"]


def __getattr__(name: str) -> Any:
    """Import public modules and names on first use, so that ``import hyperstreams`` is quick."""
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(import_module(_NAMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
