"""Interventions: exact no-ops, planted effects, and routing."""

from __future__ import annotations

from collections.abc import Sequence

import hyperstreams as hs
import pytest
import torch
from hyperstreams.diagnostics import Ablate, Replace, Rescue, effects, hooks, output_change, trace
from hyperstreams.diagnostics.causal.interventions import Edit
from hyperstreams.diagnostics.causal.replacements import top_entries
from hyperstreams.diagnostics.causal.sites import site_map
from small_models import Stack, batch, model_of
from torch import Tensor

DYNAMIC = ("hc", "mhc", "mhc_lite")
SITES = ("L0a", "L0m", "L1a", "L1m")


def run(
    model: hs.GPT, *edits: Edit, routing: str = "live", seed: int = 0, tokens: Tensor | None = None
) -> Tensor:
    tokens = batch()[0] if tokens is None else tokens
    clean = trace(model, tokens)
    generator = torch.Generator().manual_seed(seed)
    with (
        torch.no_grad(),
        hs.intervene(model, *edits, routing=routing, clean=clean, generator=generator),  # type: ignore[arg-type]
    ):
        return model(tokens)[0]


def clean_logits(model: hs.GPT) -> Tensor:
    with torch.no_grad():
        return model(batch()[0])[0]


@pytest.mark.parametrize("routing", ["live", "frozen"])
@pytest.mark.parametrize("connection", ["hc_static", "identity", *DYNAMIC])
def test_nothing_ablated_changes_no_bit(connection: str, routing: str) -> None:
    model = model_of(connection)
    plain = clean_logits(model)
    for edits in ([], [Ablate([])], [Rescue([], "all")], [Ablate([], by="resample")]):
        assert torch.equal(run(model, *edits, routing=routing), plain)
    change = output_change(plain, plain, batch()[1])
    assert change[:3] == (0.0, 0.0, 1.0)
    assert all(getattr(m, "taps", None) is None for m in model.modules())


@pytest.mark.parametrize("routing", ["live", "frozen"])
@pytest.mark.parametrize("by", ["zero", "mean", "resample"])
def test_rescuing_everything_restores_every_bit(by: str, routing: str) -> None:
    model = model_of("mhc")
    plain = clean_logits(model)
    ablate = Ablate([1, 2], "L0m", by)  # type: ignore[arg-type]
    assert not torch.equal(run(model, ablate, routing=routing), plain)
    for site in ("L0m", "L1a", "readout"):
        everything = run(model, ablate, Rescue(range(4), site), routing=routing)
        assert torch.equal(everything, plain)
    assert torch.equal(run(model, ablate, Rescue([1, 2], "L0m"), routing=routing), plain)
    nothing = run(model, ablate, Rescue([], "L1a"), routing=routing)
    assert torch.equal(nothing, run(model, ablate, routing=routing))


def test_identical_streams_can_stand_for_each_other() -> None:
    model = model_of("mhc")
    with torch.no_grad():
        model.expand.bias[2] = model.expand.bias[0]
    plain = clean_logits(model)
    assert torch.equal(run(model, Ablate([2], "L0a", "copy", 0)), plain)
    assert torch.equal(run(model, Ablate([0], "L0a", "copy", 2)), plain)
    assert not torch.equal(run(model, Ablate([1], "L0a", "copy", 0)), plain)


def test_ablations_do_what_they_say() -> None:
    model, tokens = model_of("mhc"), batch()[0]
    seen: dict[str, Tensor] = {}

    def state(edit: Edit) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        keep = {"blocks.1.attn_hc.hook_streams_in": lambda v, name: seen.update(x=v)}
        # Inner hooks see what outer ones return.
        with torch.no_grad(), hs.intervene(model, edit, generator=generator), hooks(model, keep):
            model(tokens)
        return seen["x"]

    before = trace(model, tokens).streams[2]
    for by in ("zero", "mean", "resample", "copy"):
        after = state(Ablate([1, 3], "L1a", by, 0 if by == "copy" else None))  # type: ignore[arg-type]
        assert torch.equal(after[..., [0, 2], :], before[..., [0, 2], :])
        changed, old = after[..., [1, 3], :], before[..., [1, 3], :]
        if by == "zero":
            assert not changed.any()
        elif by == "mean":
            mean = old.flatten(0, 1).mean(dim=0)
            assert torch.allclose(changed, mean.expand_as(changed), atol=1e-5)
        elif by == "copy":
            assert torch.equal(changed, before[..., [0, 0], :])
        else:
            rows, again = (t.flatten(0, 1).flatten(1) for t in (old, changed))
            match = (rows.unsqueeze(0) == again.unsqueeze(1)).all(dim=-1)
            assert match.sum(dim=0).tolist() == match.sum(dim=1).tolist() == [1] * 32
            assert not match.diagonal().all()
    one = run(model, Ablate([1], "L0m", "resample"), seed=1)
    assert torch.equal(one, run(model, Ablate([1], "L0m", "resample"), seed=1))
    assert not torch.equal(one, run(model, Ablate([1], "L0m", "resample"), seed=2))


def test_no_stream_at_the_readout_leaves_uniform_logits() -> None:
    assert not run(model_of("mhc"), Ablate(range(4), "readout")).any()


def test_frozen_routing_keeps_the_clean_coefficients() -> None:
    model, tokens = model_of("mhc"), batch()[0]
    clean = trace(model, tokens)
    with hs.intervene(model, Ablate([0], "L0m"), routing="frozen", clean=clean):
        frozen = trace(model, tokens)
    with hs.intervene(model, Ablate([0], "L0m")):
        live = trace(model, tokens)
    assert torch.equal(frozen.h_res, clean.h_res)
    assert torch.equal(frozen.h_pre, clean.h_pre)
    assert not torch.equal(live.h_pre[1:], clean.h_pre[1:])
    assert not torch.equal(frozen.branch_in[2], clean.branch_in[2])
    static = model_of("hc_static")
    for edit in (Ablate([0], "L0m"), Ablate([2], "L1a:", "mean"), Replace("mixer", "uniform")):
        assert torch.equal(run(static, edit, routing="frozen"), run(static, edit))


@pytest.mark.parametrize("routing", ["live", "frozen"])
def test_replacements_that_are_no_ops_are_exact(routing: str) -> None:
    static, plain = model_of("hc_static"), clean_logits(model_of("hc_static"))
    for what in ("mixer", "read", "write"):
        for by in ("token_mean", "static"):
            edit = Replace(what, by)  # type: ignore[arg-type]
            assert torch.equal(run(static, edit, routing=routing), plain)
            dynamic = model_of("mhc")
            assert not torch.equal(run(dynamic, edit, routing=routing), clean_logits(dynamic))
    assert torch.equal(run(static, Replace("mixer", "top", keep=4), routing=routing), plain)
    identity = model_of("identity")
    for edit in (Replace("mixer", "identity"), Replace("mixer", "top", keep=1)):
        assert torch.equal(run(identity, edit, routing=routing), clean_logits(identity))
    assert not torch.equal(
        run(identity, Replace("mixer", "uniform"), routing=routing), clean_logits(identity)
    )


@pytest.mark.parametrize("connection", ["hc", "mhc", "mhc_lite", "kromhc"])
def test_static_part_is_the_model_without_its_dynamic_weights(connection: str) -> None:
    model, without = model_of(connection), model_of(connection)
    with torch.no_grad():
        for site in without.sites.values():
            site.connection.phi.zero_()
    edits = [Replace(what, "static") for what in ("mixer", "read", "write")]  # type: ignore[arg-type]
    assert torch.allclose(run(model, *edits), clean_logits(without), rtol=1e-4, atol=1e-4)


def test_token_mean_is_over_the_batch() -> None:
    model, tokens = model_of("mhc"), batch()[0]
    clean = trace(model, tokens)
    with hs.intervene(model, Replace("mixer", "token_mean", "L1a"), Replace("read", "token_mean")):
        patched = trace(model, tokens)
    mean = clean.h_res[2].flatten(0, 1).mean(dim=0)
    assert torch.equal(patched.h_res[[0, 3], :, :, 0, 0].std(dim=(1, 2)) > 0, torch.ones(2) > 0)
    assert patched.h_res[2].flatten(0, 1).std(dim=0).max() < 1e-6
    assert torch.allclose(patched.h_pre[0, 0, 0], clean.h_pre[0].flatten(0, 1).mean(dim=0))
    frozen = [Replace("mixer", "token_mean", "L1a")]
    with hs.intervene(model, *frozen, routing="frozen", clean=clean):
        assert torch.allclose(trace(model, tokens).h_res[2, 1, 5], mean, atol=1e-6)


@pytest.mark.parametrize("sums", [(True, True), (True, False), (False, True), (False, False)])
def test_top_entries(sums: tuple[bool, bool]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(7, 5, 5, generator=generator).double() + 2 * torch.eye(5)
    if sums == (True, True):
        for _ in range(100):
            matrix = matrix / matrix.sum(-2, keepdim=True)
            matrix = matrix / matrix.sum(-1, keepdim=True)
    kept = top_entries(matrix, 3, row_sums=sums[0], column_sums=sums[1])
    along = -2 if sums == (False, True) else -1
    assert (kept != 0).sum(dim=along).eq(3).all()
    smallest = torch.where(kept != 0, matrix, torch.inf).amin(dim=along)
    assert (smallest >= torch.where(kept == 0, matrix, 0.0).amax(dim=along)).all()
    if sums[0]:
        assert torch.allclose(kept.sum(-1), matrix.sum(-1))
    if sums == (False, True):
        assert torch.allclose(kept.sum(-2), matrix.sum(-2))
    if sums == (True, True):
        rows_only = top_entries(matrix, 3, row_sums=True, column_sums=False)
        errors = [(m.sum(-2) - 1).abs().amax(dim=-1) for m in (kept, rows_only)]
        assert (errors[0] < errors[1] / 3).all()
        assert errors[0].max() < 0.03
    if sums == (False, False):
        assert torch.equal(kept, torch.where(kept != 0, matrix, 0.0))
    assert top_entries(matrix, 5, row_sums=sums[0], column_sums=sums[1]) is matrix
    diagonal = top_entries(matrix, 1, row_sums=sums[0], column_sums=sums[1])
    assert (diagonal.diagonal(dim1=-1, dim2=-2) > 0).all()


def test_top_one_of_mixers_near_the_identity_is_the_identity() -> None:
    model, tokens = model_of("mhc_lite", noise=0.0), batch()[0]
    with hs.intervene(model, Replace("mixer", "top", keep=1)):
        patched = trace(model, tokens)
    assert torch.allclose(patched.h_res, torch.eye(4).expand_as(patched.h_res), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "sites", "states"),
    [
        ("L0m", ["L0m"], ["L0m"]),
        ("L0m:L1a", ["L0m", "L1a"], ["L0m", "L1a"]),
        ("L1a:", ["L1a", "L1m"], ["L1a", "L1m", "readout"]),
        (":L0m", ["L0a", "L0m"], ["L0a", "L0m"]),
        ("early", ["L0a", "L0m"], ["L0a", "L0m"]),
        ("late", ["L1a", "L1m"], ["L1a", "L1m", "readout"]),
        ("all", list(SITES), [*SITES, "readout"]),
        (["L1m", "L0a"], ["L0a", "L1m"], ["L0a", "L1m"]),
    ],
)
def test_site_ranges(given: str | Sequence[str], sites: list[str], states: list[str]) -> None:
    known = site_map(model_of())
    assert list(known.resolve(given)) == sites
    assert list(known.resolve(given, states=True)) == states


def test_errors_are_worded() -> None:
    model, tokens = model_of("mhc"), batch()[0]
    clean = trace(model, tokens)
    wrong: list[tuple[str, object]] = [
        ("sites: expected one of L0a", Ablate([0], "L7a")),
        ("expected a slice in the order", Ablate([0], "L1a:L0a")),
        ("sites: expected one of", Replace("mixer", "identity", "readout")),
        ("streams: expected numbers from 0 to 3, got 4", Ablate([4])),
        ("streams: expected numbers from 0 to 3, got 9", Ablate([0], by="copy", source=9)),
        ("clean: expected the trace", Rescue([0], "L0m")),
        ("generator: expected a torch.Generator", Ablate([0], by="resample")),
    ]
    for words, edit in wrong:
        with pytest.raises(ValueError, match=words), hs.intervene(model, edit):  # type: ignore[arg-type]
            pass
    with pytest.raises(ValueError, match="by: expected one of zero"):
        Ablate([0], by="zeros")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="source: expected a stream"):
        Ablate([0], by="copy")
    with pytest.raises(ValueError, match="by: expected one of uniform"):
        Replace("read", "identity")
    with pytest.raises(ValueError, match="keep: expected at least 1"):
        Replace("mixer", "top")
    with (
        pytest.raises(ValueError, match="clean: expected the trace of this batch"),
        hs.intervene(model, routing="frozen", clean=clean),
    ):
        model(tokens[:1])
    other = trace(model_of("mhc", n_layer=1), tokens)
    with (
        pytest.raises(ValueError, match="expected a trace of sites"),
        hs.intervene(model, routing="frozen", clean=other),
    ):
        pass


def test_the_trace_of_other_tokens_is_refused() -> None:
    model, tokens = model_of("mhc"), batch()[0]
    clean = trace(model, tokens)
    for routing, edits in (("frozen", []), ("live", [Rescue([0], "L0m")])):
        with (
            pytest.raises(ValueError, match="trace of this batch, got other streams"),
            hs.intervene(model, *edits, routing=routing, clean=clean),  # type: ignore[arg-type]
        ):
            model(tokens.flip(1))
    with pytest.raises(ValueError, match="keep: expected at least 1"):
        Replace("mixer", "top", keep=0)


def test_any_model_with_sites_will_do() -> None:
    stack, h = Stack(), torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert site_map(stack).state_names == ("layers.0", "layers.1")
    labels = torch.zeros(2, 5, dtype=torch.int64)
    table = effects(stack, {"all": Ablate([0, 1, 2], "layers.1")}, [(h, labels)])
    with torch.no_grad():
        last = stack.layers[1](torch.zeros(2, 5, 3, 8)).sum(dim=-2)
        clean = stack(h)
    assert table.kl[0, 0].item() == output_change(clean, last).kl
    assert table.kl[0, 0] > 1e-3


def test_gradients_flow_through_edits() -> None:
    model, (tokens, targets) = model_of("mhc"), batch()
    with hs.intervene(model, Ablate([0], "L1a"), Replace("mixer", "identity", "late")):
        model(tokens, targets)[1].backward()
    assert model.sites["L0a"].connection.bias.grad.norm() > 0
