"""Find an installed PyTorch as a directory, without importing it.

The build needs PyTorch's headers and two shared libraries, nothing else. They are looked for in
``HYPERSTREAMS_TORCH_DIR``, then where ``import torch`` would look, then in the site-packages of the
environment that the interpreter belongs to: pip's build isolation hides that folder from
``sys.path`` but does not move it.

Run as a script it prints the directory (CMake does this), or the error and exit status 1.
"""

from __future__ import annotations

import importlib.util
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MINIMUM = (2, 11)
DIRECTORY_VARIABLE = "HYPERSTREAMS_TORCH_DIR"
REQUIREMENT_VARIABLE = "HYPERSTREAMS_BUILD_TORCH"

MISSING = f"""\
hyperstreams: building needs PyTorch >= {MINIMUM[0]}.{MINIMUM[1]} ({{reason}}).
Install the PyTorch that you want (CPU or CUDA) first, then run this again, or point {DIRECTORY_VARIABLE} at a torch folder,
or set {REQUIREMENT_VARIABLE}="torch==2.13.0" to download that one for this build only."""


def torch_version(directory: Path) -> tuple[int, int] | None:
    """Return (major, minor) of the PyTorch in ``directory``, or None when there is none."""
    try:
        text = (directory / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"__version__\s*=\s*['\"](\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def problem(directory: Path) -> str | None:
    """Say in a few words why ``directory`` cannot be built against, or return None."""
    version = torch_version(directory)
    if version is None:
        return f"no torch in {directory}"
    if version < MINIMUM:
        return f"{directory} holds {version[0]}.{version[1]}"
    if not (directory / "include" / "torch" / "csrc" / "stable").is_dir():
        return f"{directory} has no stable headers"
    return None


def candidates() -> Iterator[Path]:
    """Yield the places to look at, in order."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        yield Path(next(iter(spec.submodule_search_locations)))
    for key in ("platlib", "purelib"):
        yield Path(sysconfig.get_path(key)) / "torch"
    if site.ENABLE_USER_SITE:
        yield Path(site.getusersitepackages()) / "torch"


def find_torch() -> Path:
    """Return the directory of a usable PyTorch; raise LookupError with the three-line text."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        reason = problem(Path(named))
        if reason is None:
            return Path(named).resolve()
        raise LookupError(MISSING.format(reason=f"{DIRECTORY_VARIABLE}: {reason}"))
    reasons = []
    for directory in candidates():
        reason = problem(directory)
        if reason is None:
            return directory.resolve()
        if directory.is_dir():
            reasons.append(reason)
    raise LookupError(MISSING.format(reason=reasons[0] if reasons else "none is installed here"))


if __name__ == "__main__":
    try:
        print(find_torch())
    except LookupError as error:
        sys.exit(str(error))
