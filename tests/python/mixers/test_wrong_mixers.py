"""The generated tests on wrong mixers, each of which must be caught; and registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hyperstreams.mixers import (
    INVARIANTS,
    MIXERS,
    Mixer,
    Orthostochastic,
    get_mixer,
    register_mixer,
)
from hyperstreams.mixers.testing import EXCESS, check_mixer, run_checks
from torch import Tensor


def test_every_word_has_a_test() -> None:
    assert set(EXCESS) | {"negative_entries"} == set(INVARIANTS)


@dataclass(frozen=True)
class Planted(Mixer):
    """A matrix near the identity that misses the words it declares by a part in a thousand."""

    name = "planted"
    paper = "-"

    words: tuple[str, ...] = ()

    def stated_invariants(self) -> frozenset[str]:
        return frozenset(self.words)

    def logit_count(self, n: int) -> int:
        return n * n

    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(n * n)

    def matrix(self, s: Tensor) -> Tensor:
        return torch.eye(s.shape[-1], dtype=s.dtype, device=s.device) + 1e-3 * s

    def map(self, logits: Tensor, n: int) -> Tensor:
        return self.matrix(logits.unflatten(-1, (n, n)))


def failures(mixer: Mixer, *, n_values: tuple[int, ...] = (3,)) -> list[str]:
    return [str(check) for check in run_checks(mixer, n_values=n_values) if check.error]


@pytest.mark.parametrize("word", sorted(set(INVARIANTS) - {"negative_entries"}))
def test_a_missed_invariant_is_caught(word: str) -> None:
    assert failures(Planted()) == []
    (failure,) = failures(Planted((word,)))
    assert failure.startswith(f"invariants, n = 3: {word!r} ({INVARIANTS[word]}) is missed by")


@dataclass(frozen=True)
class Positive(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return torch.softmax(s, dim=-1)


@dataclass(frozen=True)
class Columns(Planted):
    """Stochastic over the wrong axis: the commonest mistake."""

    def matrix(self, s: Tensor) -> Tensor:
        return torch.softmax(s, dim=-2)


def test_half_of_a_compound_word_is_not_enough() -> None:
    assert "no negative entry" in failures(Positive(("negative_entries",)))[0]
    assert failures(Positive(("row_stochastic",))) == []
    for word in ("doubly_stochastic", "column_stochastic", "spectral_norm_at_most_one"):
        assert f"{word!r}" in failures(Positive((word,)))[0]
    assert failures(Columns(("column_stochastic",))) == []
    assert "'row_stochastic'" in failures(Columns(("row_stochastic",)))[0]


class _WrongGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(s: Tensor) -> Tensor:
        return torch.tanh(s)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


@dataclass(frozen=True)
class WrongGradient(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return _WrongGradient.apply(s)


class _OnlyFirstOrder(_WrongGradient):
    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.slope = (1 - output.detach() ** 2).clone()  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * ctx.slope  # type: ignore[attr-defined]


@dataclass(frozen=True)
class OnlyFirstOrder(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return _OnlyFirstOrder.apply(s)


@dataclass(frozen=True)
class Coupled(Planted):
    """Tokens see each other."""

    def matrix(self, s: Tensor) -> Tensor:
        return s - s.sum(dim=tuple(range(s.dim() - 2)), keepdim=True) if s.dim() > 2 else s


@dataclass(frozen=True)
class InPlace(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return s.mul_(2.0) if not s.requires_grad else s * 2.0


@dataclass(frozen=True)
class Promotes(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return s.double()


@dataclass(frozen=True)
class OnTheCpu(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return s + torch.eye(s.shape[-1], dtype=s.dtype)


@dataclass(frozen=True)
class Overflows(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return (30 * s).exp()


@dataclass(frozen=True)
class NothingFromTheLogits(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        return torch.eye(s.shape[-1], dtype=s.dtype, device=s.device).expand(s.shape)


@dataclass(frozen=True)
class SilentIdentity(Planted):
    def map(self, logits: Tensor, n: int) -> None:  # type: ignore[override]
        return None


class Mutable(Planted):
    __hash__ = None  # type: ignore[assignment]


class Unequal(Planted):
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass(frozen=True)
class WrongStart(Planted):
    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(n * n, dtype=torch.float64)


@dataclass(frozen=True)
class RandomStart(Planted):
    def initial_logits(self, n: int) -> Tensor:
        return torch.randn(n * n)


@dataclass(frozen=True)
class WrongGroups(Planted):
    def group_sizes(self, n: int) -> tuple[int, ...]:
        return (n, n)


@dataclass(frozen=True)
class TooManyStatic(Planted):
    def static_logit_count(self, n: int) -> int:
        return n * n + 1


@dataclass(frozen=True)
class NeverRefuses(Planted):
    def check(self, n: int) -> None:
        pass


@dataclass(frozen=True)
class Raises(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        raise KeyError("my own mistake")


@dataclass(frozen=True)
class PermutesBackwards(Planted):
    """The commonest mistake: the inverse permutation. Cycles show it, transpositions do not."""

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        inverse = torch.tensor(permutation).argsort()
        return logits.unflatten(-1, (n, n))[..., inverse, :][..., inverse].flatten(-2)


@dataclass(frozen=True)
class PermutesAffinely(Mixer):
    name = "permutes_affinely"
    paper = "-"

    def logit_count(self, n: int) -> int:
        return 1

    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(1)

    def map(self, logits: Tensor, n: int) -> Tensor:
        angle = (2 * torch.pi * logits).sin().unsqueeze(-1)
        return angle * torch.eye(n, dtype=logits.dtype, device=logits.device)

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return logits + 1.0


@dataclass(frozen=True)
class Refuses(Planted):
    def matrix(self, s: Tensor) -> Tensor:
        raise ArithmeticError("no matrix for these logits")


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (WrongGradient(), "gradients, n = 3: first derivative: Jacobian mismatch"),
        (OnlyFirstOrder(), "gradients, n = 3: second derivative"),
        (Coupled(), "depends on the other tokens"),
        (InPlace(), "changes its argument in place"),
        (Promotes(), "expected torch.float32 [3, 3] on cpu"),
        (OnTheCpu(), "shapes and dtypes, n = 3: "),
        (Overflows(), "h_res is not finite"),
        (NothingFromTheLogits(), "does not depend on the logits|does not require grad"),
        (Orthostochastic(initial_skew=0.0), "never trains it"),
        (SilentIdentity(), "without declaring 'identity'"),
        (Mutable(), "declaration: cannot be hashed"),
        (Unequal(), "declaration: equal settings must give equal mixers"),
        (Planted(("doubly-stochastic",)), r"unknown \['doubly-stochastic'\]; known: "),
        (WrongStart(), "expected float32 [9], got torch.float64"),
        (RandomStart(), "differ between two calls"),
        (WrongGroups(), "sizes that add up to 9, got (3, 3)"),
        (TooManyStatic(), "static_logit_count: expected 0..9, got 10"),
        (NeverRefuses(), "refuses impossible n: check(0) must raise ValueError"),
        (PermutesBackwards(), "is not that of the logits with its streams permuted"),
        (PermutesAffinely(), "permute_logits is not linear"),
        (Refuses(), "gradients, n = 3: ArithmeticError"),
        (Raises(), "KeyError: 'my own mistake'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Mixer) else "",
)
def test_a_wrong_mixer_is_caught(mixer: Mixer, message: str) -> None:
    found = "\n".join(failures(mixer))
    assert any(part in found for part in message.replace("\\", "").split("|")), found
    with pytest.raises(AssertionError, match=r"mixer '\w+': \d+ failed"):
        check_mixer(mixer, n_values=(3,))


def test_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperstreams.mixers.MIXERS", dict(MIXERS))

    def define() -> type[Mixer]:
        class Mine(Planted):
            name = "mine"

        return Mine

    assert register_mixer(define()) is not register_mixer(again := define())
    assert isinstance(get_mixer("mine"), again)
    with pytest.raises(ValueError, match="a mixer named 'sinkhorn' exists already"):
        register_mixer(type("Other", (Planted,), {"name": "sinkhorn"}))
    with pytest.raises(ValueError, match=r"mixer: expected one of .*did you mean 'sinkhorn'"):
        get_mixer("sinkhrn")
