"""What a run was made with: versions, machine, threads, commit, kernels."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import hyperstreams


def describe_environment() -> dict[str, Any]:
    """A JSON-able record of everything outside the config that numbers may depend on."""
    record: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hyperstreams": hyperstreams.__version__,
        **_source_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": _platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    if torch.cuda.is_available():
        record["cuda"] = torch.version.cuda
        record["gpu"] = torch.cuda.get_device_name()
    record["backend"] = dataclasses.asdict(hyperstreams.backend_status())
    return record


def peak_memory_mib() -> float | None:
    """Largest resident set of this process so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _source_commit() -> dict[str, Any]:
    """Commit and cleanliness of the tree this package is imported from, if it is a git tree."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return {"commit": None, "modified": None}
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        modified = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "modified": None}
    return {"commit": commit, "modified": modified}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()


def _platform() -> str:
    """System, the numbers of its version, machine; the tag of a kernel's build is left out."""
    version = re.match(r"[\d.]*\d", platform.release())
    parts = (platform.system(), version[0] if version else "", platform.machine())
    return " ".join(part for part in parts if part)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
