"""The paper's claims K1 to K6 as numbers, and verdicts by thresholds that are fixed here.

A claim is one or several measures, each a number per seed with a 95 % interval over seeds
(Student's t). A measure is *supported* where the whole interval lies beyond ``support``, *refuted*
where it lies beyond ``refute`` on the other side, else *inconclusive*. A claim of several measures
is a conjunction: refuted by any, supported by all. Fewer than ``MIN_SEEDS`` seeds decide nothing.
The thresholds do not depend on data: even use of all streams with substantial mixing refutes K1 and
K2.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

from .verdicts import NEAR_IDENTITY, STUDENT

Outcome = Literal["supported", "refuted", "inconclusive"]
MIN_SEEDS = 3
"""Seeds without which no claim is decided."""


@dataclass(frozen=True)
class Threshold:
    """``wanted`` is the side that the claim is on. Between the two values nothing is decided."""

    wanted: Literal["high", "low"]
    support: float
    refute: float

    def judge(self, low: float, high: float) -> Outcome:
        """What the interval ``low .. high`` says."""
        if self.wanted == "low":
            low, high = -high, -low
        sign = 1 if self.wanted == "high" else -1
        if low >= sign * self.support:
            return "supported"
        return "refuted" if high <= sign * self.refute else "inconclusive"

    def words(self) -> str:
        """The rule in words."""
        over, under = ("at least", "at most") if self.wanted == "high" else ("at most", "at least")
        return f"supported: interval {over} {self.support:g}; refuted: {under} {self.refute:g}"


MIXED = 0.25
"""Mean late mixing from which mixing is called substantial: a quarter of full averaging."""

THRESHOLDS: dict[str, Threshold] = {
    # 0 is the identity, 1 full averaging.
    "late mixing": Threshold("low", NEAR_IDENTITY, MIXED),
    # The same distances from the start instead of from the identity: the level decides where the
    # start is near the identity, and this says how much of it training brought.
    "late mixing gained": Threshold("low", NEAR_IDENTITY, MIXED),
    "largest late site": Threshold("low", NEAR_IDENTITY, MIXED),
    # 0 is even use, 1 a single stream; four streams are initialised to 0.30.
    "read dominance": Threshold("high", 0.50, 0.35),
    "write dominance": Threshold("high", 0.50, 0.35),
    "read dominance gained": Threshold("high", 0.10, 0.02),
    "write dominance gained": Threshold("high", 0.10, 0.02),
    "read persistence above chance": Threshold("high", 0.20, 0.05),
    "write persistence above chance": Threshold("high", 0.20, 0.05),
    "rank correlation": Threshold("high", 0.50, 0.10),
    "curvature excess": Threshold("low", -2.0, -0.5),  # degrees
    "largest stream share": Threshold("high", 0.50, 0.35),
    "share above shuffled streams": Threshold("high", 0.10, 0.02),
    "share above random weights": Threshold("high", 0.10, 0.02),
    "dominance, LSS minus plain": Threshold("low", -0.05, -0.01),
    "effective streams, LSS minus plain": Threshold("high", 0.10, 0.02),
    "loss, LSS minus plain": Threshold("low", -0.005, -0.001),  # nats per byte
}
"""Fixed before any run was made, but for two of K1 that follow from ``late mixing``.

Changing one changes what the report may say.
"""

CLAIMS = {
    "K1": "Mixing is near the identity after the first block",
    "K2": "One persistent stream dominates reading and writing",
    "K3": "The stream that is written to most also has the largest norm",
    "K4": "The dominant stream has the lowest token curvature",
    "K5": "Features of a sparse crosscoder sit in one stream",
    "K6": "Learned Stream Scaling lowers dominance and loss",
}


@dataclass(frozen=True)
class Measure:
    """One statistic of a claim: a value per seed, the same before training, and the null."""

    name: str
    definition: str
    values: tuple[float, ...]
    initial: tuple[float, ...] | None = None
    null: float | None = None
    null_words: str = ""

    @property
    def value(self) -> float:
        return statistics.mean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over seeds; None for one seed."""
        if len(self.values) < 2:
            return None
        quantile = STUDENT[min(len(self.values) - 1, len(STUDENT)) - 1]
        half = quantile * statistics.stdev(self.values) / len(self.values) ** 0.5
        return self.value - half, self.value + half

    @property
    def outcome(self) -> Outcome:
        if self.interval is None or len(self.values) < MIN_SEEDS:
            return "inconclusive"
        return THRESHOLDS[self.name].judge(*self.interval)

    @property
    def so_from_the_start(self) -> bool:
        """Whether the value before training meets the threshold of support already."""
        if self.initial is None:
            return False
        first = statistics.mean(self.initial)
        return THRESHOLDS[self.name].judge(first, first) == "supported"


@dataclass(frozen=True)
class Claim:
    """A claim with its measures and what they come to."""

    key: str
    measures: tuple[Measure, ...]
    remark: str = ""

    @property
    def text(self) -> str:
        return CLAIMS[self.key]

    @property
    def seeds(self) -> int:
        return min((len(measure.values) for measure in self.measures), default=0)

    @property
    def outcome(self) -> Outcome:
        outcomes = [measure.outcome for measure in self.measures]
        if "refuted" in outcomes:
            return "refuted"
        return "supported" if outcomes and set(outcomes) == {"supported"} else "inconclusive"
