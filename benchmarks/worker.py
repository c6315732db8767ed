"""One side of ``--compare``: a process that times the cases that it is told to, by lines of JSON.

It begins with ``{"package": path}``, what it imported. ``{"case": name}`` builds a case and answers
``{"seconds": s}`` of one call; ``{"repeats": k}`` answers ``{"seconds": s}`` of one call, the mean
of k in a row. In place of each answer there may be ``{"error": ...}``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from typing import Any

os.environ["HYPERSTREAMS_REQUIRE_FUSED"] = "1"

import hyperstreams
import torch

from .measure import settings_of
from .timing import Call, seconds_of, synchronizer

WARMUP = 3


def said(error: Exception) -> dict[str, Any]:
    """The answer in place of one that could not be had, in one line."""
    return {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}


class Worker:
    """Holds one case at a time, with its settings in force."""

    def __init__(self, threads: int, device: torch.device) -> None:
        # Imported here: a revision may lack what the cases of this tree import, and that is said.
        from .registry import all_cases

        self.threads, self.device = threads, device
        self.cases = {case.name: case for case in all_cases(device.type)}
        self.settings = ExitStack()
        self.call: Call = lambda: None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "repeats" in request:
                return {"seconds": self._seconds(request["repeats"])}
            self.settings.close()
            case = self.cases[request["case"]]
            self.settings.enter_context(settings_of(case, threads=self.threads))
            self.call = case.build(self.device).call
            return {"seconds": min(self._seconds(1) for _ in range(WARMUP))}
        except Exception as error:
            return said(error)

    def _seconds(self, repeats: int) -> float:
        self.call()  # untimed, as in measure: the other process has just run
        return seconds_of(self.call, repeats, synchronizer(self.device))


def main() -> None:
    made = argparse.ArgumentParser()
    made.add_argument("--threads", type=int, required=True)
    made.add_argument("--device", required=True)
    arguments = made.parse_args()
    # Answers go where standard output went; whatever a library prints does not.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        worker = Worker(arguments.threads, torch.device(arguments.device))
    except Exception as error:
        print(json.dumps(said(error)), file=answers)
        return
    print(json.dumps({"package": hyperstreams.__file__}), file=answers)
    for request in sys.stdin:
        print(json.dumps(worker.answer(json.loads(request))), file=answers)


if __name__ == "__main__":
    main()
