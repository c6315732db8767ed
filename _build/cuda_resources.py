"""Run nvcc and keep what its kernels use: registers, shared memory, stack and spills.

    cuda_resources.py --folder FOLDER --limits FILE [--error] -- COMPILER ARGUMENT...

What ``ptxas -v`` reports goes to ``FOLDER/<source>.txt``, one line per kernel and architecture, and
the rest of the compiler's messages to standard error. Kernels that spill, or whose stack is above
its limit in FILE (see there), are named; with ``--error`` they fail the compilation. Dynamic shared
memory is in the launch plans, not here.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """What one kernel uses on one architecture; bytes but for the registers."""

    name: str
    architecture: str
    registers: int
    shared: int
    stack: int  # with the functions that it calls
    spilled: int

    def row(self) -> str:
        return (
            f"{self.architecture:<6} {self.registers:4} registers {self.shared:6} bytes shared "
            f"{self.stack:5} bytes stack {self.spilled:5} bytes spilled  {self.name}"
        )


def is_report(line: str) -> bool:
    """Whether a line belongs to the report that `parse` reads, rather than to people."""
    return not line.strip() or line.startswith("ptxas info") or "bytes stack frame" in line


def parse(report: str) -> list[Kernel]:
    """The kernels of a ``ptxas -v`` report, in its order, with mangled names."""
    kernels = []
    entry = ("", "")
    stack = spilled = 0
    for line in report.splitlines():
        if found := re.search(r"Compiling entry function '(.+)' for '(.+)'", line):
            entry = (found[1], found[2])
        elif "bytes stack frame" in line:
            stack = number(line, "bytes stack frame")
            spilled = number(line, "bytes spill stores")
        elif re.search(r"Used \d+ registers", line):
            kernels.append(
                Kernel(
                    name=entry[0],
                    architecture=entry[1],
                    registers=number(line, "registers"),
                    shared=number(line, "bytes smem"),
                    stack=max(stack, number(line, "bytes cumulative stack size")),
                    spilled=spilled,
                )
            )
    return kernels


def number(line: str, unit: str) -> int:
    found = re.search(rf"(\d+) {unit}", line)
    return int(found[1]) if found else 0


def demangle(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Names as C++ writes them, without parameters, where c++filt is installed."""
    if not kernels or shutil.which("c++filt") is None:
        return list(kernels)
    mangled = "".join(kernel.name + "\n" for kernel in kernels)
    names = subprocess.run(
        ["c++filt", "-p"], input=mangled, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [replace(kernel, name=name) for kernel, name in zip(kernels, names, strict=True)]


def read_limits(text: str) -> list[tuple[str, int]]:
    """(pattern, bytes of stack) of every line "BYTES PATTERN" that is no comment."""
    limits = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"(\d+)\s+(\S.*)", line.strip())
        if not found:
            raise ValueError(f"expected 'BYTES PATTERN', got {line!r}")
        limits.append((found[2], int(found[1])))
    return limits


def complaints(kernels: Iterable[Kernel], limits: Sequence[tuple[str, int]]) -> list[str]:
    """One line for every kernel that spills or has more stack than it may."""
    found = []
    for kernel in kernels:
        allowed = max((size for name, size in limits if fnmatchcase(kernel.name, name)), default=0)
        if kernel.spilled > 0:
            found.append(f"{kernel.spilled} bytes of registers spilled: {kernel.name}")
        elif kernel.stack > allowed:
            found.append(f"{kernel.stack} bytes of stack, {allowed} allowed: {kernel.name}")
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--limits", type=Path, required=True)
    parser.add_argument("--error", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    source = next((Path(a).stem for a in options.command if a.endswith(".cu")), "unknown")
    compiled = subprocess.run(options.command, stderr=subprocess.PIPE, text=True, errors="replace")
    for line in compiled.stderr.splitlines():
        if not is_report(line):
            print(line, file=sys.stderr)
    kernels = demangle(parse(compiled.stderr))
    options.folder.mkdir(parents=True, exist_ok=True)
    table = "".join(row + "\n" for row in sorted(kernel.row() for kernel in kernels))
    (options.folder / f"{source}.txt").write_text(table, encoding="utf-8")
    found = complaints(kernels, read_limits(options.limits.read_text(encoding="utf-8")))
    kind = "error" if options.error else "warning"
    for complaint in found:
        print(f"{source}.cu: {kind}: {complaint} (see {options.limits})", file=sys.stderr)
    return compiled.returncode or int(options.error and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
