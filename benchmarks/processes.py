"""Other Python processes that find the packages that they are meant to find."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def python(*arguments: str, first: Sequence[Path] = ()) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a Python with this one's paths, those of ``first`` before them.

    Without site (-S) no path file of an editable install puts another copy of the package first.
    """
    paths = [str(path) for path in first] + [path for path in sys.path if path]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}
    return [sys.executable, "-S", *arguments], environment
