"""Build backend: scikit-build-core, preceded by a check that PyTorch is there.

pip resolves run-time dependencies before it builds. Without this check a user who has no PyTorch
would first download gigabytes of it and then meet an error from CMake.
"""

from __future__ import annotations

import os

import scikit_build_core.build as _core
from find_torch import REQUIREMENT_VARIABLE, find_torch
from scikit_build_core.build import *  # noqa: F403

Settings = dict[str, list[str] | str] | None


def _with_torch(requires: list[str]) -> list[str]:
    requirement = os.environ.get(REQUIREMENT_VARIABLE)
    if requirement:
        return [*requires, requirement]
    try:
        find_torch()
    except LookupError as error:
        raise SystemExit(str(error)) from None
    return requires


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return _with_torch(_core.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return _with_torch(_core.get_requires_for_build_editable(config_settings))
