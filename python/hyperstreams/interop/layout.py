"""What a foreign layout of one site's parameters is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from ..mixers import Sinkhorn
from ..nn import Connection, ConnectionConfig, get_connection

Tensors = Mapping[str, Tensor]


@dataclass
class Site:
    """A site read from a foreign layout: what ``nn.Connection`` takes, and how it was obtained.

    state : ``phi, norm_weight, alpha, bias`` (those that exist), float32 or float64.
    transposed : foreign tensors whose axes or entries change order, and how.
    """

    config: ConnectionConfig
    n_streams: int
    width: int
    state: dict[str, Tensor]
    transposed: tuple[str, ...] = ()


Settings = Mapping[str, Any]


@dataclass(frozen=True)
class SiteLayout:
    """How one code base stores a site.

    connection : the connection here that computes the same function.
    names : foreign tensors, all required, and the parameters here that hold them; ``optional`` ones
        may be absent, ``ignored`` ones are not used there.
    load : ``(tensors, config) -> Site``. save : ``(connection) -> tensors``. Pure functions of
        tensors, so that gradients flow from one layout to the other.
    settings : numbers that the checkpoint does not hold, by the code base's own name, and the
        fields of the connection that they set.
    accepts : tells layouts with the same names apart by their shapes.
    """

    name: str
    connection: str
    names: Mapping[str, str]
    load: Callable[[Tensors, ConnectionConfig], Site]
    save: Callable[[Connection], dict[str, Tensor]]
    optional: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    accepts: Callable[[Tensors], bool] = lambda tensors: True

    def matches(self, tensors: Tensors) -> bool:
        """Whether ``tensors`` has this layout's names and shapes."""
        return self.names.keys() <= tensors.keys() and self.accepts(tensors)

    def configured(self, settings: Settings) -> tuple[ConnectionConfig, list[str]]:
        """The connection with ``settings``, and a line for each setting that is not given."""
        config = get_connection(self.connection)
        assumed = []
        for name, paths in self.settings.items():
            if name not in settings:
                value = _get(config, paths[0])
                assumed.append(f"{name}={value}: the checkpoint does not record it")
                continue
            value = settings[name]
            if name == "tanh":
                value = "tanh" if value else "none"
            for path in paths:
                config = _set(config, path, value)
        return config, assumed


def _get(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = getattr(data, name)
    return data


def _set(data: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return replace(data, **{name: _set(getattr(data, name), rest, value) if rest else value})


def expect(name: str, tensor: Tensor, *shape: int) -> Tensor:
    """The tensor, when it has ``shape``; ValueError otherwise."""
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"load_foreign: {name}: expected shape {list(shape)}, got {list(tensor.shape)}"
        )
    return tensor


_INITIAL = (
    *("name", "paper", "alpha", "read_bias", "write_bias", "phi_init", "phi_per_input"),
    *("designate", "trainable", "static_decay", "norm_weight"),
)


def require_function(site: Connection, target: ConnectionConfig) -> None:
    """Raise ValueError unless ``site`` computes the function of ``target``.

    Initial values do not matter. A norm weight is no obstacle: who has none folds it into ``phi``.
    """
    same: dict[str, Any] = {name: getattr(target, name) for name in _INITIAL}
    mixer: Any = site.config.mixer
    if isinstance(mixer, Sinkhorn) and isinstance(target.mixer, Sinkhorn):
        same["mixer"] = replace(mixer, initial=target.mixer.initial)
    config = replace(site.config, **same)
    for item in fields(config):
        ours, theirs = getattr(config, item.name), getattr(target, item.name)
        if ours != theirs:
            raise ValueError(
                f"to_foreign: connection {site.config.name!r}: {item.name}: expected {theirs!r} "
                f"as in {target.name!r}, got {ours!r}: the two compute different functions"
            )
