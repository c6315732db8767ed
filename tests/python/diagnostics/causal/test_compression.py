"""Collapse to m streams: exact where it must be, best where it cannot."""

from __future__ import annotations

import json

import hyperstreams as hs
import pytest
import torch
from hyperstreams.diagnostics import Compression, Replace, collapse_streams, effects
from hyperstreams.diagnostics.causal.truncation import balanced_projection, cut_values, later_reads
from hyperstreams.nn import permute_streams
from small_models import batch, model_of
from torch import Tensor


def batches() -> list[tuple[Tensor, Tensor]]:
    return [batch(0), batch(1)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def planted(kind: str, rank: int = 2) -> hs.GPT:
    """Four streams that hold (``written``), or of which is read (``read``), ``rank`` combinations.

    The mixers keep the span A of the states, or the span B of the readers, and are random else.
    """
    model = model_of("hc_static", final_norm="after_reduce")
    ones = torch.ones(4, 1, dtype=torch.float64)
    span = torch.cat([ones, random(4, rank - 1, seed=9)], dim=1)
    inverse = torch.linalg.pinv(span)
    outside = torch.eye(4) - span @ inverse
    with torch.no_grad():
        noise = random(4, 24, seed=1) if kind == "read" else span @ random(rank, 24, seed=1)
        model.expand.bias.copy_(noise)
        for k, site in enumerate(model.sites.values()):
            kept = span @ (torch.eye(rank) + 0.2 * random(rank, rank, seed=k)) @ inverse
            mixer = kept + 0.5 * random(4, 4, seed=30 + k) @ outside
            inside = span @ random(rank, seed=40 + k)
            anything = random(4, seed=20 + k)
            read, write, mixer = (
                (anything, inside, mixer) if kind == "written" else (inside, anything, mixer.T)
            )
            # Large writes: what a state has been told should matter beside the embedding.
            site.connection.bias.copy_(torch.cat([read, 20 * write, mixer.flatten()]))
    return model


@pytest.mark.parametrize("connection", ["hc", "mhc", "mhc_lite"])
def test_all_streams_are_the_frozen_token_mean_model(connection: str) -> None:
    model = model_of(connection)
    found = collapse_streams(model, batches())
    assert found.table.axes == {
        "method": ("balanced", "dominant"),
        "streams": ("1", "2", "3", "4"),
    }
    for measure in ("kl", "delta_loss", "top1"):
        full = found.table.mean(measure)[:, -1]  # type: ignore[arg-type]
        assert torch.equal(full, found.frozen.mean(measure).expand(2))  # type: ignore[arg-type]
    assert found.frozen.kl.min() > 0
    assert not found.added_loss[:, -1].any()
    assert found.added_loss[:, :-1].abs().min() > 1e-5
    # Frozen over one batch is what Replace does with that batch.
    one = collapse_streams(model, batches()[:1]).frozen
    edits = [Replace(what, "token_mean") for what in ("mixer", "read", "write")]  # type: ignore[arg-type]
    replaced = effects(model, {"a": edits}, batches()[:1], routing="frozen")
    assert torch.allclose(one.kl, replaced.kl, rtol=1e-3)


def test_static_coefficients_are_their_own_token_mean() -> None:
    found = collapse_streams(model_of("hc_static"), batches())
    assert not found.frozen.kl.any()
    assert not found.table.kl[:, :, -1].any()


@pytest.mark.parametrize("kind", ["written", "read"])
def test_a_model_that_uses_two_combinations_needs_two_streams(kind: str) -> None:
    found = collapse_streams(planted(kind), batches())
    kl = found.table.mean()
    assert kl[0, 1:].max() < 1e-8
    assert kl[0, 0] > 1e-4
    assert kl[1, :3].min() > 1e-4
    values = found.singular_values
    assert (values[:, 1] > 1e-3 * values[:, 0])[1:-1].all()
    assert (values[:, 2:] < 1e-5 * values[:, :1]).all()
    assert found.effective_rank.max() <= 2 + 1e-3


def test_copies_of_one_stream_need_one() -> None:
    model = model_of("identity", expand="replicate")
    with torch.no_grad():
        for site in model.sites.values():
            site.connection.phi.zero_()
            site.connection.bias.fill_(0.5)
    found = collapse_streams(model, batches())
    assert found.table.kl[:, 0].abs().max() < 1e-8
    assert torch.allclose(found.effective_rank, torch.ones(5).double(), atol=1e-4)


def test_balanced_truncation_does_not_see_the_names_of_streams() -> None:
    model = model_of("mhc")
    plain = collapse_streams(model, batches())
    permuted = collapse_streams(permute_streams(model, [2, 0, 3, 1]), batches())
    assert torch.allclose(permuted.table.mean(), plain.table.mean(), rtol=1e-3)
    assert torch.allclose(permuted.singular_values, plain.singular_values, rtol=1e-4, atol=1e-5)
    assert [[2, 0, 3, 1][s] for s in permuted.order] == list(plain.order)


def test_calibration_on_other_tokens_and_json() -> None:
    model = model_of("mhc")
    found = collapse_streams(model, batches()[:1], calibration=batches()[1:])
    assert found.table.details["calibration"] == "other batches"
    assert not torch.equal(found.table.kl, collapse_streams(model, batches()[:1]).table.kl)
    again = Compression.from_json(json.loads(json.dumps(found.to_json())))
    assert torch.equal(again.added_loss, found.added_loss)
    assert torch.equal(again.singular_values, found.singular_values)
    assert (again.order, again.state_names) == (found.order, found.state_names)
    with pytest.raises(ValueError, match="calibration: expected at least one"):
        collapse_streams(model, [])


def test_projection_is_the_best_of_its_rank() -> None:
    gram = random(5, 40)
    gram = gram @ gram.T / 40
    reads = random(9, 5, seed=1)
    values = cut_values(reads, gram)

    def lost(projection: Tensor) -> Tensor:
        error = reads @ (torch.eye(5) - projection)
        return torch.einsum("ri,ij,rj->", error, gram, error)

    for keep in range(1, 6):
        down, up = balanced_projection(reads, gram, keep)
        assert torch.allclose(down @ up, torch.eye(keep).double())
        least = lost(up @ down)
        assert torch.allclose(least, values[keep:].square().sum(), atol=1e-10)
        for seed in range(5):
            basis = random(5, keep, seed=seed + 2)
            assert least <= lost(basis @ torch.linalg.pinv(basis)) + 1e-10
    change = random(5, 5, seed=7)
    inverse = torch.linalg.inv(change)
    again = cut_values(reads @ inverse, change @ gram @ change.T)
    assert torch.allclose(again, values)


def test_projected_states_are_a_network_of_fewer_streams() -> None:
    sites, n, keep, width = 4, 4, 2, 6
    h_pre, h_post, h_res = random(sites, n), random(sites, n, seed=1), random(sites, n, n, seed=2)
    gram = random(sites + 1, n, 30, seed=3)
    gram = gram @ gram.mT
    reads = later_reads(h_pre, h_res, torch.eye(n), gram)
    assert [len(rows) for rows in reads] == [n + sites - k for k in range(sites + 1)]
    pairs = [balanced_projection(r, g, keep) for r, g in zip(reads, gram, strict=True)]
    state = start = random(n, width, seed=5)
    small = pairs[0][0] @ start
    for k in range(sites):
        (down, up), (next_down, _) = pairs[k : k + 2]
        state = h_res[k] @ (up @ down @ state) + torch.outer(
            h_post[k], torch.tanh(h_pre[k] @ up @ down @ state)
        )
        small = next_down @ h_res[k] @ up @ small + torch.outer(
            next_down @ h_post[k], torch.tanh(h_pre[k] @ up @ small)
        )
    down, up = pairs[-1]
    assert torch.allclose(up @ small, up @ down @ state)


def test_reads_are_scaled_to_what_is_read() -> None:
    h_pre, h_res = random(2, 3), random(2, 3, 3, seed=1)
    gram = random(3, 3, 10, seed=2)
    gram = gram @ gram.mT
    reads = later_reads(h_pre, h_res, torch.ones(1, 3), gram)
    direct = h_pre[0] / (h_pre[0] @ gram[0] @ h_pre[0]).sqrt()
    assert torch.allclose(reads[0][0], direct)
    last = torch.ones(3).double() / gram[2].sum().sqrt()
    assert torch.allclose(reads[0][2], last @ h_res[1] @ h_res[0])
    assert torch.allclose(reads[2], last.unsqueeze(0))
    assert not later_reads(torch.zeros(2, 3), h_res, torch.zeros(1, 3), gram)[0].any()
