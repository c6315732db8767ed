"""``python -m benchmarks.memory``: peak memory and time of a training step by what it keeps.

Each way in a process of its own: everything; ``hs.recompute(model)``; ``torch.utils.checkpoint``
around every site, which keeps all streams; and around every branch, inside ``hs.recompute``. Memory
is the growth of the process's resident set from before the first step to its peak, so that
parameters and PyTorch itself are left out: a step of a tiny model, before that, has loaded it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HYPERSTREAMS_REQUIRE_FUSED"] = "1"

import hyperstreams as hs
import torch
from torch.utils.checkpoint import checkpoint

from .processes import python

WAYS = ("everything", "recompute", "checkpointed sites", "recompute, checkpointed branches")
STATUS = Path("/proc/self/status")
TINY = {"n_layer": 1, "width": 32, "block_size": 8, "batch_size": 1}
"""A model that imports and starts all that a larger one does."""


def memory(name: str) -> float:
    """A line of the process's status in MiB."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) / 1024


def step_of(way: str, options: argparse.Namespace) -> Callable[[], None]:
    """One forward and backward of a new model, whose gradients are allocated."""
    generator = torch.Generator().manual_seed(0)
    config = hs.GPTConfig(
        connection=options.connection,
        n_layer=options.n_layer,
        n_head=4,
        width=options.width,
        block_size=options.block_size,
    )
    model = hs.GPT(config, generator=generator)
    shape = (options.batch_size, options.block_size + 1)
    tokens = torch.randint(256, shape, generator=generator)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for site in model.sites.values():
        if way == "checkpointed sites":
            site.forward = partial(checkpoint, site.forward, use_reentrant=False)
        if way == "recompute, checkpointed branches":
            branch: Any = site.branch
            branch.forward = partial(checkpoint, branch.forward, use_reentrant=False)

    def step() -> None:
        model.zero_grad()
        with hs.recompute(model) if way.startswith("recompute") else nullcontext():
            model(tokens[:, :-1], tokens[:, 1:])[1].backward()

    return step


def measure(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Peak MiB and median ms of ``options.rounds`` steps in this process."""
    torch.set_num_threads(options.threads)
    step_of(way, argparse.Namespace(**{**vars(options), **TINY}))()
    step = step_of(way, options)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget earlier peaks
    before = memory("VmRSS")
    seconds = []
    for _ in range(options.rounds + 1):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return {
        "peak_mib": round(memory("VmHWM") - before, 1),
        "median_ms": round(1e3 * statistics.median(seconds[1:]), 1),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--connection", default="mhc_lite")
    for name, default in (
        ("n_layer", 12),
        ("width", 256),
        ("block_size", 256),
        ("batch_size", 8),
        ("rounds", 3),
        ("threads", torch.get_num_threads()),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--way", choices=WAYS, help="measure one in this process, print JSON")
    options = parser.parse_args(argv)
    if not STATUS.exists():
        print(f"benchmarks.memory: expected a system with {STATUS}, got none", file=sys.stderr)
        return 1
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return 0
    settings = vars(options)
    del settings["way"]
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    print(f"one training step, {settings}")
    print("| kept | peak MiB | ms | memory | time |\n|---|---|---|---|---|")
    rows: dict[str, Any] = {}
    for way in WAYS:
        command, environment = python("-m", "benchmarks.memory", "--way", way, *arguments)
        rows[way] = json.loads(subprocess.check_output(command, env=environment, text=True))
        row, all_kept = rows[way], rows["everything"]
        print(
            f"| {way} | {row['peak_mib']:.0f} | {row['median_ms']:.0f} "
            f"| {row['peak_mib'] / all_kept['peak_mib']:.2f}x "
            f"| {row['median_ms'] / all_kept['median_ms']:.2f}x |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
