"""Problems that are the user's to solve: worded in a line or two, shown without a traceback."""

from __future__ import annotations

import importlib
from types import ModuleType


class RunError(ValueError):
    """An anticipated problem with settings, data or a run directory."""


class MissingExtraError(RunError, ImportError):
    """An optional package is needed and absent."""


class NonFiniteError(RuntimeError):
    """The loss or a gradient became NaN or infinite.

    ``step`` is the update that was about to be made (the weights are those before it), ``module``
    the first module to blame, or None when repeating the batch did not show one.
    """

    def __init__(self, message: str, *, step: int, module: str | None) -> None:
        super().__init__(message)
        self.step = step
        self.module = module


def require(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which extra brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise MissingExtraError(
            f"{purpose} needs the package {name!r}: pip install 'hyperstreams[{extra}]' ({error})"
        ) from error
