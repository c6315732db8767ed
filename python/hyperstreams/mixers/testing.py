"""Tests of a mixer, generated from what its class declares: for the package's own and for yours.

>>> from hyperstreams.mixers.testing import check_mixer
>>> check_mixer(MyMixer())  # AssertionError with every failure, or the list of what was checked
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from .base import INVARIANTS, Mixer

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 2e-5, F64: 1e-9}
"""Of the invariants, in absolute terms: entries of h_res are of the order of 1."""

Predicate = Callable[[Tensor], Tensor]


def _spectral_norm(h: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(h, ord=2)


def _identity(h: Tensor) -> Tensor:
    return torch.eye(h.shape[-1], dtype=h.dtype)


EXCESS: dict[str, tuple[Predicate, ...]] = {
    "identity": (lambda h: (h - _identity(h)).abs(),),
    "nonnegative": (lambda h: -h,),
    "unit_row_sums": (lambda h: (h.sum(dim=-1) - 1.0).abs(),),
    "unit_column_sums": (lambda h: (h.sum(dim=-2) - 1.0).abs(),),
    "orthogonal": (lambda h: (h @ h.mT - _identity(h)).abs(),),
    "spectral_norm_one": (lambda h: (_spectral_norm(h) - 1.0).abs(),),
    "spectral_norm_at_most_one": (lambda h: _spectral_norm(h) - 1.0,),
    "symmetric": (lambda h: (h - h.mT).abs(),),
    "commuting": (lambda h: (h @ h.roll(1, 0) - h.roll(1, 0) @ h).abs(),),
}
"""By how much matrices ``[T, n, n]`` miss a word: at most rounding. Compound words follow."""
EXCESS["row_stochastic"] = EXCESS["nonnegative"] + EXCESS["unit_row_sums"]
EXCESS["column_stochastic"] = EXCESS["nonnegative"] + EXCESS["unit_column_sums"]
EXCESS["doubly_stochastic"] = EXCESS["row_stochastic"] + EXCESS["unit_column_sums"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked: ``error`` is None, or says what is wrong."""

    name: str
    n: int | None
    error: str | None = None

    def __str__(self) -> str:
        where = "" if self.n is None else f", n = {self.n}"
        return f"{self.name}{where}" + ("" if self.error is None else f": {self.error}")


class _Wrong(Exception):
    """Raised by a check whose mixer is wrong."""


def _expect(condition: object, message: str) -> None:
    if not condition:
        raise _Wrong(message)


def _map(mixer: Mixer, logits: Tensor, n: int) -> Tensor:
    h = mixer.map(logits, n)
    if h is None:
        _expect(
            "identity" in mixer.stated_invariants(),
            "map returned None, which is h_res = I, without declaring 'identity'",
        )
        return torch.eye(n, dtype=logits.dtype).expand(*logits.shape[:-1], n, n)
    return h


def _samples(mixer: Mixer, n: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Logits ``[T, K]`` of three sizes, and near the start."""
    generator = torch.Generator().manual_seed(seed)
    count = mixer.logit_count(n)
    start = mixer.initial_logits(n).to(F64)
    noise = torch.randn(4, 16, count, generator=generator, dtype=F64)
    parts = [0.1 * noise[0], noise[1], 4.0 * noise[2], start + 0.1 * noise[3], start[None]]
    return torch.cat(parts).to(dtype)


def _declaration(mixer: Mixer) -> None:
    for attribute in ("name", "paper"):
        _expect(isinstance(getattr(mixer, attribute, None), str), f"{attribute}: expected a string")
    unknown = sorted(mixer.stated_invariants() - INVARIANTS.keys())
    _expect(not unknown, f"invariants: unknown {unknown}; known: {', '.join(INVARIANTS)}")
    try:
        same = mixer == copy.copy(mixer) and hash(mixer) == hash(copy.copy(mixer))
    except TypeError as error:
        raise _Wrong(f"cannot be hashed ({error}): decorate with @dataclass(frozen=True)") from None
    _expect(
        same,
        "equal settings must give equal mixers: decorate the class with @dataclass(frozen=True)",
    )


def _range(mixer: Mixer) -> None:
    for n in (0, mixer.max_streams + 1):
        try:
            mixer.check(n)
        except ValueError:
            continue
        raise _Wrong(f"check({n}) must raise ValueError: max_streams is {mixer.max_streams}")


def _logits(mixer: Mixer, n: int, seed: int) -> None:
    count, static = mixer.logit_count(n), mixer.static_logit_count(n)
    _expect(isinstance(count, int) and count >= 0, f"logit_count: expected an int >= 0: {count!r}")
    _expect(0 <= static <= count, f"static_logit_count: expected 0..{count}, got {static}")
    sizes = mixer.group_sizes(n)
    _expect(
        all(size >= 0 for size in sizes) and sum(sizes) == count - static,
        f"group_sizes: expected sizes that add up to {count - static}, got {sizes}",
    )
    start = mixer.initial_logits(n)
    _expect(
        start.shape == (count,) and start.dtype == F32,
        f"initial_logits: expected float32 [{count}], got {start.dtype} {list(start.shape)}",
    )
    _expect(bool(start.isfinite().all()), "initial_logits: not finite")
    _expect(torch.equal(start, mixer.initial_logits(n)), "initial_logits: differ between two calls")


def _shapes(mixer: Mixer, n: int, seed: int) -> None:
    count = mixer.logit_count(n)
    for dtype in (F32, F64):
        for tokens in ((), (3,), (2, 3), (0,)):
            for device in ("cpu", "meta"):
                h = mixer.map(torch.zeros(*tokens, count, dtype=dtype, device=device), n)
                if h is None:
                    continue
                _expect(
                    h.shape == (*tokens, n, n) and h.dtype == dtype and h.device.type == device,
                    f"map: expected {dtype} {[*tokens, n, n]} on {device} from logits "
                    f"{[*tokens, count]}, got {h.dtype} {list(h.shape)} on {h.device.type}",
                )


def _invariants(mixer: Mixer, n: int, seed: int) -> None:
    words = mixer.stated_invariants()
    for dtype in (F32, F64):
        h = _map(mixer, _samples(mixer, n, dtype, seed), n)
        _expect(bool(h.isfinite().all()), f"h_res is not finite for {dtype} logits of size 4")
        for word in sorted(words & EXCESS.keys()):
            for predicate in EXCESS[word]:
                excess = predicate(h).amax().item()
                _expect(
                    excess <= TOLERANCE[dtype],
                    f"{word!r} ({INVARIANTS[word]}) is missed by {excess:.1e} in {dtype}",
                )
        if "negative_entries" in words and n >= 3:
            _expect(bool((h < -1e-6).any()), "'negative_entries': no negative entry was met")


def _tokens(mixer: Mixer, n: int, seed: int) -> None:
    logits = _samples(mixer, n, F64, seed)
    before = logits.clone()
    h = _map(mixer, logits, n)
    _expect(torch.equal(logits, before), "map changes its argument in place")

    def close(actual: Tensor, expected: Tensor) -> bool:
        return torch.allclose(actual, expected, atol=1e-10, rtol=1e-10)

    for t in (0, 20, len(logits) - 1):
        _expect(
            close(_map(mixer, logits[t], n), h[t]),
            "a token's h_res depends on the other tokens of the batch",
        )
    strided = logits.mT.contiguous().mT
    _expect(close(_map(mixer, strided, n), h), "wrong for logits with strides")
    batched = torch.vmap(lambda z: _map(mixer, z, n))(logits)
    _expect(close(batched, h), "torch.vmap gives another result")
    # Of logits of sizes 0.1 and 1: a mixer may be ill-conditioned far out.
    single = _map(mixer, logits[:32].float(), n).double()
    difference = (single - h[:32]).abs().amax().item()
    _expect(difference < 1e-3, f"float32 and float64 differ by {difference:.1e}")


def _gradient(mixer: Mixer, n: int, seed: int) -> None:
    count = mixer.logit_count(n)
    if not count:
        return
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, count, generator=generator, dtype=F64).requires_grad_()

    def function(z: Tensor) -> Tensor:
        return _map(mixer, z, n)

    # Fast: along one random direction instead of entry by entry.
    first, second = torch.autograd.gradcheck, torch.autograd.gradgradcheck
    for order, check, fast in (("first", first, count > 9), ("second", second, True)):
        try:
            check(function, (logits,), fast_mode=fast)
        except GradcheckError as error:
            lines = str(error).strip().splitlines()
            raise _Wrong(f"{order} derivative: {' '.join(lines[:4])[:300]}") from None


def _start(mixer: Mixer, n: int, seed: int) -> None:
    if not mixer.logit_count(n) or n == 1:
        return
    start = mixer.initial_logits(n).to(F64).requires_grad_()
    h = _map(mixer, start, n)
    generator = torch.Generator().manual_seed(seed)
    (gradient,) = torch.autograd.grad(
        h, start, torch.randn(n, n, generator=generator, dtype=F64), allow_unused=True
    )
    _expect(gradient is not None, "h_res does not depend on the logits")
    _expect(bool(gradient.isfinite().all()), "the gradient at initial_logits is not finite")
    largest = gradient.abs().amax().item()
    _expect(
        largest > 1e-9,
        f"the gradient at initial_logits is {largest:.1e}: a zero controller never trains it",
    )


def _permutation(mixer: Mixer, n: int, seed: int) -> None:
    logits = _samples(mixer, n, F64, seed)
    order = [*range(1, n), 0]  # its own inverse for n <= 2 only
    permuted = mixer.permute_logits(logits, order, n)
    if permuted is None:
        return
    expected = _map(mixer, logits, n)[:, order][:, :, order]
    found = _map(mixer, permuted, n)
    _expect(
        torch.allclose(found, expected, atol=1e-9, rtol=1e-9),
        "the map of permute_logits(logits) is not that of the logits with its streams permuted",
    )
    rest = mixer.permute_logits(2.0 * logits.roll(1, 0) + logits, order, n)
    _expect(
        rest is not None and torch.allclose(rest, 2.0 * permuted.roll(1, 0) + permuted),
        "permute_logits is not linear",
    )


PER_N: dict[str, Callable[[Mixer, int, int], None]] = {
    "logit counts and initial logits": _logits,
    "shapes and dtypes": _shapes,
    "invariants": _invariants,
    "one token at a time": _tokens,
    "gradients": _gradient,
    "trains from its start": _start,
    "permutes with the streams": _permutation,
}


def _run(name: str, n: int | None, check: Callable[[], None]) -> Check:
    try:
        check()
    except _Wrong as error:
        return Check(name, n, str(error))
    except Exception as error:  # a user's class may fail in any way: that is a finding
        words = [type(error).__name__, str(error).strip().partition("\n")[0][:300]]
        return Check(name, n, ": ".join(filter(None, words)))
    return Check(name, n)


def run_checks(
    mixer: Mixer, *, n_values: Iterable[int] = (1, 2, 3, 4), seed: int = 0
) -> Iterator[Check]:
    """Every check of ``mixer``, one after the other.

    Once: it is immutable data, its words are known, it refuses impossible n. For every n of
    ``n_values`` that ``mixer.check`` accepts: logit counts and initial logits; shapes, dtypes and
    devices; the declared invariants in float32 and float64 for logits of three sizes and near the
    start; one token's matrix is independent of the others, of strides, of ``torch.vmap``; first and
    second derivatives against finite differences; a gradient at the start; ``permute_logits``.
    """
    yield _run("declaration", None, partial(_declaration, mixer))
    yield _run("refuses impossible n", None, partial(_range, mixer))
    accepted, sizes = 0, tuple(n_values)
    for n in sizes:
        try:
            mixer.check(n)
        except ValueError as error:
            yield Check(f"refuses: {error}", n)
            continue
        accepted += 1
        for name, check in PER_N.items():
            yield _run(name, n, partial(check, mixer, n, seed))
    if not accepted:
        yield Check("range", None, f"refuses every n of {sizes}")


def check_mixer(
    mixer: Mixer, *, n_values: Iterable[int] = (1, 2, 3, 4), seed: int = 0
) -> list[Check]:
    """:func:`run_checks` as a list; AssertionError with all that is wrong."""
    checks = list(run_checks(mixer, n_values=n_values, seed=seed))
    wrong = [str(check) for check in checks if check.error is not None]
    if wrong:
        name = getattr(mixer, "name", type(mixer).__name__)
        raise AssertionError("\n".join([f"mixer {name!r}: {len(wrong)} failed", *wrong]))
    return checks
