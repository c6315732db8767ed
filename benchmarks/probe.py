"""What a probe costs: a training step without one, beside one that is not due, and sampled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hyperstreams.diagnostics import Probe
from hyperstreams.diagnostics.live.probe import COEFFICIENTS, STREAMS
from hyperstreams.models import GPT, GPTConfig

from .timing import paired_times, summarize

LEVELS = {"coefficients": (COEFFICIENTS, 10, 0.002), "streams": (STREAMS, 100, 0.01)}
"""Quantities, ``every``, and the largest share of a step that they may cost on average at it."""
NOT_DUE_LIMIT = 0.005
"""Largest share that a probe may cost on a step that is not sampled: the noise of the timing."""


def build_steps(preset: str, tokens_per_step: int) -> dict[str, Callable[[], None]]:
    """Forward, backward and AdamW of one model; what differs is the probe around it."""
    generator = torch.Generator().manual_seed(0)
    config = GPTConfig.preset(preset, connection="mhc_lite", vocab_size=256, block_size=128)
    model = GPT(config, generator=generator)
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4)
    shape = (tokens_per_step // config.block_size, config.block_size)
    tokens = torch.randint(config.vocab_size, shape, generator=generator)
    targets = torch.randint(config.vocab_size, shape, generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        model(tokens, targets)[1].backward()
        optimizer.step()

    def sampled(what: tuple[str, ...]) -> Callable[[], None]:
        probe = Probe(model, what=what, every=1)

        def run() -> None:
            with probe:
                step()
                probe.scalars(0)

        return run

    idle = Probe(model, every=100, dense=False)

    def not_due() -> None:
        with idle:
            idle.start(1)
            step()
            idle.scalars(1)

    levels = {name: sampled(what) for name, (what, _, _) in LEVELS.items()}
    return {"without": step, "not due": not_due, **levels}


def run_probe(*, rounds: int) -> list[dict[str, Any]]:
    """Both presets; ``amortised``: extra share of a step at the level's ``every``.

    Limits hold for the small preset: of a step of the tiny one Python's own time is a large part.
    """
    results = []
    for preset, tokens in (("tiny", 2048), ("small", 2048)):
        times = paired_times(build_steps(preset, tokens), rounds=rounds)
        table = summarize(times, baseline="without")
        levels = {}
        for name, (_, every, limit) in LEVELS.items():
            extra = 1 / table[name]["ratio"] - 1
            levels[name] = {
                "sampled_step": round(extra, 4),
                "every": every,
                "amortised": round(extra / every, 5),
                "limit": limit,
            }
        extra = 1 / table["not due"]["ratio"] - 1
        levels["not due"] = {
            "sampled_step": round(extra, 4),
            "every": 1,
            "amortised": round(extra, 5),
            "limit": NOT_DUE_LIMIT,
        }
        results.append({"preset": preset, "tokens": tokens, "times": table, "levels": levels})
    return results


def print_probe(results: list[dict[str, Any]]) -> None:
    print("\nCost of a probe, mHC-lite training step (paired medians)")
    print("| preset | ms a step | level | sampled step | every | amortised | limit (small) |")
    print("|---|---|---|---|---|---|---|")
    for case in results:
        for name, level in case["levels"].items():
            print(
                f"| {case['preset']} | {case['times']['without']['median_ms']:.1f} | {name} "
                f"| {level['sampled_step']:+.1%} | {level['every']} | {level['amortised']:+.2%} "
                f"| {level['limit']:.1%} |"
            )


def too_dear(results: list[dict[str, Any]]) -> list[str]:
    """The levels of the small preset above their limits."""
    return [
        f"{case['preset']}, {name}: {level['amortised']:.2%} of a step, limit {level['limit']:.1%}"
        for case in results
        for name, level in case["levels"].items()
        if case["preset"] == "small" and level["amortised"] > level["limit"]
    ]
