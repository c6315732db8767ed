"""Effects of interventions as tables: what is measured, and the causal matrices."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hyperstreams.diagnostics import (
    Ablate,
    EffectTable,
    Replace,
    RescueTable,
    ablation_matrix,
    effects,
    intervene,
    mixer_matrix,
    output_change,
    rescue_matrix,
    trace,
)
from hyperstreams.diagnostics.causal.effect_matrices import stream_subsets
from hyperstreams.nn import permute_streams
from small_models import batch, model_of
from torch.nn import functional

STATES = ("L0a", "L0m", "L1a", "L1m", "readout")


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [batch(0), batch(1)]


def test_output_change_is_the_textbook_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 200, 11, generator=generator).double().unbind()
    targets = torch.randint(0, 11, (3, 200), generator=generator)
    targets[0, :5] = -1
    change = output_change(a, b, targets)
    log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
    expected = functional.kl_div(log_q, log_p, log_target=True, reduction="sum") / 600
    assert change.kl == pytest.approx(expected.item())
    losses = [
        functional.cross_entropy(x.flatten(0, 1), targets.flatten(), ignore_index=-1).item()
        for x in (a, b)
    ]
    assert change.clean_loss == pytest.approx(losses[0])
    assert change.delta_loss == pytest.approx(losses[1] - losses[0])
    assert change.top1 == pytest.approx((a.argmax(-1) == b.argmax(-1)).double().mean().item())
    # A uniform prediction: KL = log V - entropy.
    flat = output_change(a, torch.zeros_like(a))
    entropy = -(log_p.exp() * log_p).sum(-1).mean().item()
    assert flat.kl == pytest.approx(math.log(11) - entropy)
    assert math.isnan(flat.delta_loss)
    assert output_change(a, a + 3.0, targets).kl == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="changed: expected logits of shape"):
        output_change(a, b[:1])


def test_named_effects_are_single_interventions() -> None:
    model = model_of("mhc").train()
    edits = {
        "nothing": [],
        "one": Ablate([1], "L1a"),
        "two": [Ablate([1], "L1a"), Replace("mixer", "uniform", "late")],
    }
    table = effects(model, edits, batches())  # type: ignore[arg-type]
    assert model.training
    assert table.shape == (3,)
    assert table.tokens == 64
    assert table.kl[:, 0].tolist() == table.delta_loss[:, 0].tolist() == [0.0, 0.0]
    assert table.top1[:, 0].tolist() == [1.0, 1.0]
    assert (table.kl[:, 1:] > 1e-4).all()
    model.eval()
    for k, (tokens, targets) in enumerate(batches()):
        with torch.no_grad(), intervene(model, *edits["two"]):
            changed = model(tokens, targets)
        with torch.no_grad():
            clean = model(tokens, targets)
        difference = (changed[1] - clean[1]).item()
        assert table.delta_loss[k, 2].item() == pytest.approx(difference, abs=2e-5)
        assert table.clean_loss[k].item() == pytest.approx(clean[1].item(), rel=1e-5)


def test_table_survives_json() -> None:
    table = effects(model_of("hc"), {"a": Ablate([0]), "b": Ablate([1])}, batches())
    again = EffectTable.from_json(json.loads(json.dumps(table.to_json())))
    assert again.axes == table.axes
    assert again.details == table.details
    for name in ("kl", "delta_loss", "top1", "clean_loss"):
        assert torch.equal(getattr(again, name), getattr(table, name))
    row = table.rows()[1]
    assert row["intervention"] == "b"
    assert row["kl"] == table.kl[:, 1].mean().item()
    assert row["kl_standard_error"] == table.standard_error()[1].item()
    with pytest.raises(ValueError, match="format: expected"):
        EffectTable.from_json({})
    with pytest.raises(ValueError, match="measure: expected one of kl"):
        table.mean("loss")  # type: ignore[arg-type]


def test_ablation_matrix() -> None:
    model = model_of("mhc")
    table = ablation_matrix(model, batches(), subsets="all", sites=["L0m", "readout"])
    assert table.axes["streams"][:5] == ("s0", "s1", "s2", "s3", "s0+s1")
    assert table.axes["state"] == ("L0m", "readout")
    assert table.shape == (15, 2)
    assert (table.kl > 0).all()
    # All streams at the readout: nothing is left but the uniform distribution.
    entropy = [
        torch.distributions.Categorical(logits=trace(model, tokens).logits).entropy().mean()
        for tokens, _ in batches()
    ]
    expected = math.log(256) - torch.stack(entropy).double()
    assert torch.allclose(table.kl[:, -1, 1], expected, rtol=1e-5)
    none = ablation_matrix(model, batches(), subsets=[()])
    assert not none.kl.any()
    assert none.axes["state"] == STATES
    onwards = ablation_matrix(model, batches(), sites="L1m:", onwards=True)
    once = ablation_matrix(model, batches(), sites=["L1m"])
    assert not torch.allclose(onwards.kl, once.kl)


def test_ablation_matrix_follows_a_permutation_of_the_streams() -> None:
    model, order = model_of("mhc"), [2, 0, 3, 1]
    plain = ablation_matrix(model, batches()).kl
    permuted = ablation_matrix(permute_streams(model, order), batches()).kl
    assert torch.allclose(permuted, plain[:, order], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("routing", ["frozen", "live"])
def test_rescue_matrix(routing: str) -> None:
    model = model_of("mhc")
    at_once = rescue_matrix(model, batches(), after=0, routing=routing)  # type: ignore[arg-type]
    assert torch.equal(at_once.recovery, torch.eye(4).double().expand(4, 4, 4))
    later = rescue_matrix(model, batches(), sites="late", routing=routing)  # type: ignore[arg-type]
    assert later.rescued_at == ("readout", "readout")
    assert later.recovery.shape == (2, 4, 4)
    assert (later.recovery <= 1).all()
    assert later.overall.shape == (4, 4)
    again = RescueTable.from_json(json.loads(json.dumps(later.to_json())))
    assert torch.equal(again.recovery, later.recovery)
    assert again.rescued_at == later.rescued_at
    with pytest.raises(ValueError, match="by: expected zero, mean or resample"):
        rescue_matrix(model, batches(), by="copy")


def test_rescue_of_streams_that_never_meet_is_diagonal() -> None:
    # Identity mixers, writes into stream 0 only, and reads from it: the others only pass through.
    model = model_of("identity")
    with torch.no_grad():
        for site in model.sites.values():
            site.connection.phi.zero_()
            site.connection.bias[:8] = -200.0
            site.connection.bias[[0, 4]] = 1.0
    table = rescue_matrix(model, batches(), sites="L0m:L1a")
    passing = table.recovery[:, 1:]
    expected = torch.eye(4).double()[1:].expand(2, 3, 4)
    assert torch.allclose(passing, expected, atol=1e-4)


def test_mixer_matrix() -> None:
    table = mixer_matrix(model_of("mhc"), batches())
    assert table.axes["group"] == ("early", "late", "all")
    assert table.shape == (6, 3)
    assert (table.kl > 0).all()
    assert table.details["groups"]["late"] == ["L1a", "L1m"]
    identity = mixer_matrix(
        model_of("identity"), batches(), replacements=["identity", "token mean"]
    )
    assert not identity.kl.any()
    with pytest.raises(ValueError, match="replacements: expected some of identity"):
        mixer_matrix(model_of("mhc"), batches(), replacements=["zero"])


def test_stream_subsets() -> None:
    assert stream_subsets(3) == [(0,), (1,), (2,)]
    assert stream_subsets(3, "all")[3:] == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert len(stream_subsets(4, "all")) == 15
    assert stream_subsets(4, [[1, 2]]) == [(1, 2)]
