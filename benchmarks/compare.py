"""``--compare REV``: this tree and another revision, each in its process, in turn."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import results, revision
from .case import Case
from .processes import python
from .report import duration
from .timing import ratios, repeats_for, spread

PAUSE_SECONDS = 0.01
"""Between turns: threads of the other process stop waiting for work and free the processor."""


class Side:
    """A worker process on one copy of the package."""

    def __init__(self, package: Path, *, threads: int, device: str) -> None:
        command, environment = python(
            *("-m", "benchmarks.worker", f"--threads={threads}", f"--device={device}"),
            first=[package],
        )
        self.process = subprocess.Popen(
            command,
            cwd=revision.ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._check(package)
        except ValueError:
            self.close()
            raise

    def _check(self, package: Path) -> None:
        answer = self._answer()
        if "error" in answer:
            raise ValueError(
                f"--compare: {package}: expected a package that this tree's cases run on, "
                f"got {answer['error']}"
            )
        found = Path(answer["package"]).resolve()
        if not found.is_relative_to(package.resolve()):
            raise ValueError(f"--compare: expected the package of {package}, got {found}")

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # of a worker that stopped; its answer is missing then
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"--compare: a worker stopped with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.communicate()


def compare_case(name: str, sides: Mapping[str, Side], *, rounds: int) -> dict[str, Any]:
    """Median and spread of both, and of the rounds' ratios: above 1, this tree is faster."""
    record: dict[str, Any] = {"name": name}
    first = {side: worker.ask(case=name) for side, worker in sides.items()}
    errors = {side: answer["error"] for side, answer in first.items() if "error" in answer}
    if errors:
        return record | {"error": "; ".join(f"{side}: {said}" for side, said in errors.items())}
    repeats = repeats_for(min(answer["seconds"] for answer in first.values()))
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for side in order:
            time.sleep(PAUSE_SECONDS)
            answer = sides[side].ask(repeats=repeats)
            if "error" in answer:
                return record | {"error": f"{side}: {answer['error']}"}
            times[side].append(answer["seconds"])
    for side, seconds in times.items():
        middle, low, high = (round(1e3 * value, 6) for value in spread(seconds))
        record[side] = {"median_ms": middle, "p10_ms": low, "p90_ms": high}
    middle, low, high = spread(ratios(times["other"], times["this"]))
    return record | {
        "ratio": round(middle, 4),
        "ratio_p10": round(low, 4),
        "ratio_p90": round(high, 4),
    }


def table(records: Sequence[Mapping[str, Any]], other: str) -> str:
    """Markdown, one line for each case."""
    lines = [f"| case | this tree | {other} | times faster (p10-p90) |", "|---|---|---|---|"]
    for record in records:
        if "error" in record:
            lines.append(f"| {record['name']} | failed: {record['error']} | | |")
            continue
        lines.append(
            f"| {record['name']} | {duration(record['this']['median_ms'])} "
            f"| {duration(record['other']['median_ms'])} | {record['ratio']:.3g}x "
            f"({record['ratio_p10']:.3g}-{record['ratio_p90']:.3g}) |"
        )
    return "\n".join(lines) + "\n"


def run(cases: Sequence[Case], arguments: argparse.Namespace, command: list[str]) -> int:
    """Build, time, print and write; the exit status. The files are complete after every case."""
    sides: dict[str, Side] = {}
    try:
        commit = revision.commit_of(arguments.compare)
        packages = {"this": revision.ROOT / "python", "other": revision.built(arguments.compare)}
        for name, package in packages.items():
            sides[name] = Side(package, threads=arguments.threads, device=arguments.device)
        return _run(cases, arguments, command, sides, commit)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        for side in sides.values():
            side.close()


def _run(
    cases: Sequence[Case],
    arguments: argparse.Namespace,
    command: list[str],
    sides: Mapping[str, Side],
    commit: str,
) -> int:
    kind = "_".join(["compare", commit[:12], *arguments.only])
    out = arguments.out or results.default_path(kind, arguments.device, arguments.threads)
    records: list[dict[str, Any]] = []
    result = {
        "format": results.FORMAT,
        "environment": results.environment_record(command),
        "rounds": arguments.rounds,
        "compared_with": {"revision": arguments.compare, "commit": commit},
        "cases": records,
    }
    for case in cases:
        records.append(compare_case(case.name, sides, rounds=arguments.rounds))
        print(table(records[-1:], arguments.compare).splitlines()[-1], flush=True)
        written = [results.write_json(result, out), results.beside(out, ".md")]
        written[1].write_text(table(records, arguments.compare), encoding="utf-8")
    print("written: " + ", ".join(str(path) for path in written))
    return 1 if any("error" in record for record in records) else 0
