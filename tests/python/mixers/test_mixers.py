"""The generated tests over the registry and the dialects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hyperstreams.mixers import (
    DIALECTS,
    MIXERS,
    Cayley,
    Orthostochastic,
    Sinkhorn,
    Transport,
)
from hyperstreams.mixers.testing import check_mixer, run_checks

SINKHORNS = {
    f"sinkhorn_{name}": DIALECTS[name].mixer
    # "paper" is the default, "megatron" DeepSeek-V4's, and "tokenbender" has a test below.
    for name in sorted(set(DIALECTS) - {"paper", "megatron", "tokenbender"})
}
VARIANTS = {
    **{name: mixer() for name, mixer in MIXERS.items()},
    **SINKHORNS,
    "orthostochastic_1": Orthostochastic(s=1),
    "transport_options": Transport(minorisation=3.35e-4, scaled_slope=True),
    "cayley_exact": Cayley(exact=True),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_registry(name: str) -> None:
    checks = check_mixer(VARIANTS[name])
    assert {check.n for check in checks} == {None, 1, 2, 3, 4}


@pytest.mark.parametrize(
    "name", sorted(set(VARIANTS) - {"birkhoff_exact", "permutation", "sinkhorn", *SINKHORNS})
)
def test_more_streams(name: str) -> None:
    checks = check_mixer(VARIANTS[name], n_values=(5, 8))
    assert {check.n for check in checks} == {None, 5, 8}


def test_tokenbender_does_not_train_its_mixing_matrix_from_its_start() -> None:
    """exp(-8 / 0.05) = 3e-70: a property of that code base. All else holds."""
    mixer = DIALECTS["tokenbender"].mixer
    wrong = [str(check) for check in run_checks(mixer) if check.error is not None]
    assert len(wrong) == 3
    assert all("trains from its start" in line for line in wrong)
    check_mixer(replace(mixer, initial=(0.0, -0.4)))


def test_the_side_normalised_last_is_stated() -> None:
    assert DIALECTS["paper"].mixer == Sinkhorn()
    assert DIALECTS["megatron"].mixer == DIALECTS["deepseek_v4"].mixer
    sides = {
        name: sorted(dialect.mixer.stated_invariants() - {"nonnegative"})
        for name, dialect in DIALECTS.items()
    }
    assert sides == {
        "paper": ["row_stochastic"],
        "mhc_lite_repository": ["column_stochastic"],
        "deepseek_v4": [],
        "megatron": [],
        "liger": [],
        "transformer_engine": ["row_stochastic"],
        "lucidrains": ["column_stochastic"],
        "tokenbender": ["row_stochastic"],
    }
    assert all("nonnegative" in d.mixer.stated_invariants() for d in DIALECTS.values())


def test_refused_sizes_are_reported() -> None:
    checks = check_mixer(MIXERS["permutation"](), n_values=(3, 6))
    assert any("refuses: mixer 'permutation': n_streams must be" in str(c) for c in checks)
    with pytest.raises(ValueError, match="Mixers for more streams: ") as refusal:
        MIXERS["permutation"]().check(6)
    others = str(refusal.value).partition("streams: ")[2].replace("'", "").split(", ")
    assert others == ["kronecker", "circulant", "spectral", "transport", "sinkhorn"]
    for name in others:
        MIXERS[name]().check(6)
    with pytest.raises(AssertionError, match=r"range: refuses every n of \(6, 7\)"):
        check_mixer(MIXERS["permutation"](), n_values=(6, 7))
