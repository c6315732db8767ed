"""``hyperstreams test-mixer``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from .cli_settings import Parser
from .mixers import Mixer, get_mixer
from .mixers.testing import run_checks
from .train import RunError


def load_mixer(target: str) -> Mixer:
    """The mixer of ``module:attribute`` (a class or an instance), or a registered one."""
    module_name, colon, attribute = target.partition(":")
    if not colon:
        try:
            return get_mixer(target)
        except ValueError as error:
            raise RunError(f"{error}. Your own: my_module:MyMixer") from None
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise RunError(f"{target}: {error}; looked in {here} and where Python looks") from None
    finally:
        sys.path.remove(here)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RunError(f"{target}: {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if isinstance(found, type) and issubclass(found, Mixer):
        try:
            found = found()
        except TypeError as error:
            raise RunError(
                f"{target}: {error}; a class is tested with its default settings, an instance with "
                "its own"
            ) from None
    if not isinstance(found, Mixer):
        raise RunError(f"{target}: expected a subclass or an instance of hyperstreams.mixers.Mixer")
    return found


def parse_streams(text: str) -> list[int]:
    """``"2,3,4"`` to numbers of streams."""
    try:
        values = [int(word) for word in text.split(",") if word]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise RunError(f"--n: expected numbers of streams like 2,3,4, got {text!r}")
    return values


def _describe(mixer: Mixer, n: int) -> str:
    """Logits, and what the mixer starts as; nothing where that fails, which is a finding below."""
    try:
        count, static = mixer.logit_count(n), mixer.static_logit_count(n)
        h = mixer.map(mixer.initial_logits(n), n)
        h = torch.eye(n) if h is None else h
        off = h[~torch.eye(n, dtype=torch.bool)]
        start = f"starts with {h.diagonal().mean():.5f} on the diagonal"
        if n > 1:
            start += f", {off.min():.2e} to {off.max():.2e} off it"
        return (
            f"n = {n}: {count} logits"
            + (f", {static} of them static" if static else "")
            + f"; {start}"
        )
    except Exception:
        return f"n = {n}"


def main(arguments: Sequence[str]) -> int:
    """Print what was checked of a mixer; 1 if anything is wrong."""
    parser = Parser(
        "test-mixer",
        description="Test a mixer, yours or a registered one, against what its class declares: "
        "shapes, invariants,\nindependence of tokens, first and second derivatives, the start.",
        examples=[
            "hyperstreams test-mixer my_module:MyMixer --n 2,3,4",
            "hyperstreams test-mixer sinkhorn",
        ],
    )
    parser.add_argument(
        "mixer", help="MODULE:CLASS or MODULE:INSTANCE, from here too, or a name of 'list mixers'"
    )
    parser.add_argument("--n", default="1,2,3,4", help="numbers of streams, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the logits, default %(default)s")
    options = parser.parse_args(arguments)
    n_values = parse_streams(options.n)
    mixer = load_mixer(options.mixer)
    invariants = ", ".join(sorted(mixer.stated_invariants())) or "none"
    print(f"{mixer!r}\ninvariants: {invariants}")
    shown: int | None = None
    count = failed = 0
    for check in run_checks(mixer, n_values=n_values, seed=options.seed):
        if check.n is not None and check.n != shown:
            shown = check.n
            print(_describe(mixer, shown))
        count += 1
        failed += check.error is not None
        print(f"  {'ok  ' if check.error is None else 'FAIL'}  {check.name}", flush=True)
        if check.error is not None:
            print(f"        {check.error}")
    print(f"{count} checks, {failed} failed" if failed else f"all {count} checks pass")
    return int(failed > 0)
