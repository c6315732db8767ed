"""The pure metrics on traces of real small models: the identities that must hold there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hyperstreams.diagnostics import (
    activations,
    collapse_report,
    composite,
    decodability,
    geometry,
    gradients,
    hooks,
    ledger,
    lens,
    similarity,
    trace,
)
from hyperstreams.diagnostics.live.readout import model_parts
from hyperstreams.models import GPT, GPTConfig
from torch import Tensor

CONNECTIONS = ["mhc_lite", "mhc", "hc"]


def model_of(connection: str, **overrides: Any) -> GPT:
    """A float64 model whose parameters are moved away from their start."""
    sizes: dict[str, Any] = {"n_layer": 3, "n_head": 2, "width": 16, "block_size": 12}
    config = GPTConfig(**{**sizes, "vocab_size": 32, "connection": connection, **overrides})
    generator = torch.Generator().manual_seed(3)
    model = GPT(config, generator=generator, dtype=torch.float64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise)
    return model


def batch() -> tuple[Tensor, Tensor]:
    rows = torch.randint(0, 32, (2, 13), generator=torch.Generator().manual_seed(0))
    return rows[:, :-1], rows[:, 1:]


def error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("expand", ["replicate", "learned_scale"])
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_ledger_and_gram_chain_of_a_real_model(connection: str, expand: str) -> None:
    t = trace(model_of(connection, expand=expand), *batch())
    copies = expand == "replicate"
    start = None if copies else torch.eye(t.n_streams, dtype=torch.float64)
    composition = ledger.ledger(t.h_res.double(), t.h_post.double(), start=start)
    written = ledger.writers(t.streams[0], t.branch_out, replicated=copies)
    assert error(ledger.reconstruct(composition, written), t.streams) < 1e-10
    c = ledger.contributions(t.h_pre.double(), composition)
    inputs = (c.unsqueeze(-2) @ written).squeeze(-2)
    assert error(inputs[:-1], t.branch_in) < 1e-10
    rank = ledger.cut_rank(c, written.norm(dim=-1), starts=1 if copies else t.n_streams)
    assert (rank <= t.n_streams + 1e-9).all()
    for k in range(len(t.site_names)):
        gram = geometry.extended_gram(t.streams[k], t.branch_out[k])
        after = geometry.next_gram(gram, t.h_res[k].double(), t.h_post[k].double())
        actual = t.streams[k + 1] @ t.streams[k + 1].mT
        assert error(after, actual) < 1e-10


def test_stream_rank_is_capped_until_enough_is_written() -> None:
    copied = trace(model_of("mhc", expand="replicate"), *batch())
    scaled = trace(model_of("mhc", expand="learned_scale"), *batch())
    assert torch.allclose(
        similarity.effective_rank(copied.streams[0] @ copied.streams[0].mT),
        torch.ones(2, 12).double(),
    )
    for k in range(4):
        assert (torch.linalg.matrix_rank(copied.streams[k]) <= k + 1).all()
    assert (torch.linalg.matrix_rank(scaled.streams[0]) == 4).all()


def test_mixers_keep_their_sums_over_all_sites() -> None:
    t = trace(model_of("mhc_lite"), *batch())
    chain = composite.composites(t.h_res)
    for side in ("destination", "source"):
        assert (composite.amax_gain(chain, side=side) - 1).abs().max() < 1e-5  # type: ignore[arg-type]
    measured = composite.contraction(chain)
    assert (measured <= composite.contraction_bound(t.h_res) + 1e-6).all()
    assert (measured.diff(dim=0) <= 1e-6).all()


@pytest.mark.parametrize("norm", ["layer", "rms", "parameter_free"])
@pytest.mark.parametrize("final_norm", ["before_reduce", "after_reduce"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "weighted"])
@torch.no_grad()
def test_lens_at_the_last_state_is_the_model(reduce: str, final_norm: str, norm: str) -> None:
    model = model_of("mhc", reduce=reduce, final_norm=final_norm, norm=norm, n_layer=1)
    t = trace(model, *batch())
    unembedding = model.token_embedding.weight
    through = lens.logit_lens(t.streams, model.reduce, unembedding)
    assert torch.equal(through[-1], t.logits)
    assert not torch.allclose(through[0], t.logits)
    parts = model_parts(model, t.streams[-1])
    every = lens.subset_logits(parts, unembedding)
    assert error(every[-1], t.logits) < 1e-12
    share = lens.readout_share(parts)
    assert torch.allclose(share.sum(-1), torch.ones(2, 12).double())
    scores = lens.lens_scores(through, t.logits, batch()[1])
    assert scores.kl[-1].abs().max() < 1e-12
    assert scores.agreement[-1].all()
    assert scores.log_prob is not None
    assert t.loss is not None
    assert -scores.log_prob[-1].mean().item() == pytest.approx(t.loss.item(), rel=1e-6)


def test_half_precision_traces() -> None:
    """Coefficients stay single; what is computed of half-precision streams is not in half."""
    exact = trace(model_of("mhc"), *batch())
    t = trace(model_of("mhc").float().bfloat16(), *batch())
    assert (t.streams.dtype, t.h_res.dtype) == (torch.bfloat16, torch.float32)
    written = ledger.writers(t.streams[0], t.branch_out, replicated=True)
    composition = ledger.ledger(t.h_res, t.h_post)
    rebuilt = ledger.reconstruct(composition, written)
    assert error(rebuilt, t.streams.float()) < 0.03
    assert ledger.contribution_norm(ledger.contributions(t.h_pre, composition), written).ndim == 4
    gram = geometry.extended_gram(t.streams[3], t.branch_out[3])
    assert gram.dtype == torch.float32
    pairs = {
        "curvature": lambda s: torch.rad2deg(geometry.token_curvature(s[3])[0]) / 100,
        "position": lambda s: torch.rad2deg(geometry.position_curvature(s[3])[0]) / 100,
        "rank": lambda s: similarity.effective_rank(s[3] @ s[3].mT).mean(),
        "adjacent": lambda s: similarity.adjacent_cosine(s).mean(),
        "kurtosis": lambda s: activations.kurtosis(s[3]),
        "cka": lambda s: similarity.cka(s[3, :, :, 0].flatten(0, 1), s[4, :, :, 1].flatten(0, 1)),
    }
    for name, compute in pairs.items():
        value, expected = compute(t.streams), compute(exact.streams)
        assert value.dtype in (torch.float32, torch.float64), name
        assert torch.allclose(value.double(), expected, atol=0.05, rtol=0.05), name
    report = collapse_report(t)
    reference = collapse_report(exact)
    for kind, entry in report.items():
        for name, measured in entry.measures.items():
            expected = reference[kind].measures[name].value
            assert measured.value == pytest.approx(expected, rel=0.05), name


def test_the_token_is_decodable_before_the_first_site() -> None:
    """Every stream is a copy of the embedding there; fewer words than channels are separable."""
    model = model_of("mhc", vocab_size=8, position="rope", n_layer=1)
    tokens = torch.randint(0, 8, (16, 12), generator=torch.Generator().manual_seed(4))
    streams = trace(model, tokens).streams[0].flatten(0, 1)
    found = decodability.decodability(
        streams, tokens.flatten(), generator=torch.Generator().manual_seed(0)
    )
    assert found.single.tolist() == [1.0] * 4
    assert found.unique.tolist() == [0.0] * 4
    assert found.chance < 0.3


def test_gradients_by_streams_are_those_of_finite_differences() -> None:
    model, (tokens, targets) = model_of("hc", n_layer=1), batch()
    gradient = gradients.stream_gradients(model, tokens, targets)
    t = trace(model, tokens, targets)
    assert gradient.shape == t.streams.shape
    direction = torch.randn(
        t.streams.shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    for k, name in enumerate(("blocks.0.attn_hc", "blocks.0.mlp_hc", "reduce")):
        losses = []
        for sign in (1, -1):
            move = {f"{name}.hook_streams_in": lambda v, _, s=sign: v + s * 1e-3 * direction}
            with hooks(model, move), torch.no_grad():
                losses.append(model(tokens, targets)[1].item())
        expected = (losses[0] - losses[1]) / 2e-3
        assert (gradient[k] * direction).sum().item() == pytest.approx(expected, rel=1e-3)
    assert activations.gradient_norm(gradient).shape == (3, 4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_streams_that_are_consumed_alike_have_equal_gradients() -> None:
    config = GPTConfig(
        n_layer=1, n_head=2, width=16, block_size=12, vocab_size=32, connection="mhc",
        designate="none",
    )  # fmt: skip
    model = GPT(config, generator=torch.Generator().manual_seed(3), dtype=torch.float64).eval()
    norm = activations.gradient_norm(gradients.stream_gradients(model, *batch()))
    assert torch.allclose(norm, norm[:, :1].expand_as(norm), rtol=1e-6)
    assert (norm > 0).all()


@pytest.mark.parametrize("connection", ["mhc_lite", "kromhc"])
def test_the_first_mixer_gets_no_gradient_from_copies(connection: str) -> None:
    copied = gradients.logit_gradients(model_of(connection), *batch())
    scaled = gradients.logit_gradients(model_of(connection, expand="learned_scale"), *batch())
    assert copied.mix[0] <= 1e-12 * copied.mix[1:].max()
    assert scaled.mix[0] > 1e-2 * scaled.mix[1:].max()
    assert (copied.read > 0).all()
    assert (copied.write > 0).all()
    # After a finite Sinkhorn iteration destination sums still depend on the logits.
    assert gradients.logit_gradients(model_of("mhc"), *batch()).mix[0] > 0
