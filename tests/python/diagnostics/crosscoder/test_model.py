"""The crosscoder's equations: which latents are kept, losses, normalisation, one site."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics.crosscoder import (
    Crosscoder,
    CrosscoderConfig,
    CrosscoderTrainer,
    auxiliary_loss,
    decoder_weight,
    reconstruction_loss,
    weighted_l1,
)
from hyperstreams.diagnostics.crosscoder.activation import keep_batch_top_k, keep_top_k


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_coder(sites: int = 3, width: int = 6, **settings: object) -> Crosscoder:
    values = {"n_latents": 20, "k": 4, "norm": "none"} | settings
    coder = Crosscoder(
        CrosscoderConfig(**values),  # type: ignore[arg-type]
        n_sites=sites,
        width=width,
        generator=generator(),
    )
    with torch.no_grad():  # away from the tied, unbiased start
        for parameter in coder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(7)))
    return coder


def test_top_k_keeps_k_of_every_token_and_batch_top_k_shares_the_budget() -> None:
    latents = torch.rand(50, 30, generator=generator()) + 0.1
    weight = torch.rand(30, generator=generator(1)) + 0.1
    score = latents * weight
    kept = keep_top_k(latents, score, 5)
    assert torch.equal((kept > 0).sum(dim=1), torch.full((50,), 5))
    assert torch.equal(kept[kept > 0], latents[kept > 0])
    dropped = torch.where(kept > 0, 0.0, score).amax(dim=1)
    assert bool((torch.where(kept > 0, score, math.inf).amin(dim=1) >= dropped).all())

    shared, smallest = keep_batch_top_k(latents, score, 5)
    assert int((shared > 0).sum()) == 50 * 5
    assert (shared > 0).sum(dim=1).unique().numel() > 1
    assert smallest == score[shared > 0].min()
    assert bool((score[shared == 0] <= smallest).all())


def test_equal_scores_do_not_break_the_budget() -> None:
    latents = torch.ones(6, 10)
    assert torch.equal((keep_top_k(latents, latents, 3) > 0).sum(dim=1), torch.full((6,), 3))
    assert int((keep_batch_top_k(latents, latents, 3)[0] > 0).sum()) == 18


def test_forward_is_the_formula() -> None:
    coder = random_coder(activation="l1")
    a = torch.randn(9, 3, 6, generator=generator(2))
    f = torch.zeros(9, 20)
    for i in range(3):
        f = f + a[:, i] @ coder.encoder[i]
    f = (f + coder.encoder_bias).relu()
    expected = torch.stack(
        [f @ coder.decoder[:, i] + coder.decoder_bias[i] for i in range(3)], dim=1
    )
    torch.testing.assert_close(coder(a), expected)
    torch.testing.assert_close(coder.encode(a), f)


@pytest.mark.parametrize("activation", ["l1", "topk", "batch_topk"])
def test_one_site_is_a_sparse_autoencoder(activation: str) -> None:
    """A few steps equal those of an autoencoder written here, weight for weight."""
    config = CrosscoderConfig(
        n_latents=12,
        k=3,
        activation=activation,  # type: ignore[arg-type]
        norm="none",
        steps=8,
        batch_size=32,
        lr=1e-2,
        l1_weight=0.2,
        l1_ramp=0.0,
        lr_decay=0.0,
        aux_weight=0.0,
        grad_clip=1e9,
    )
    data = torch.randn(9, 32, 1, 5, generator=generator(3))
    trainer = CrosscoderTrainer(config, data[8])
    down = trainer.coder.decoder[:, 0].detach().clone().requires_grad_()
    up = trainer.coder.encoder[0].detach().clone().requires_grad_()
    bias = torch.zeros(12, requires_grad=True)
    out_bias = data[8, :, 0].mean(dim=0).clone().requires_grad_()
    parameters = [down, up, bias, out_bias]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for batch in data[:8]:
        x = batch[:, 0]
        f = torch.relu(x @ up + bias)
        importance = (f * down.norm(dim=1)).detach()
        if activation == "topk":
            f = f * (importance >= importance.sort(dim=1).values[:, -3:-2])
        if activation == "batch_topk":
            f = f * (importance >= importance.flatten().sort().values[-3 * 32])
        loss = ((x - (f @ down + out_bias)) ** 2).sum(dim=1).mean()
        if activation == "l1":
            loss = loss + 0.2 * (f * down.norm(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        terms = trainer.train_step(batch)
        total = terms["reconstruction"] + 0.2 * terms.get("l1", torch.zeros(()))
        torch.testing.assert_close(total, loss.detach(), rtol=1e-4, atol=1e-5)
    mine = (
        trainer.coder.decoder[:, 0],
        trainer.coder.encoder[0],
        trainer.coder.encoder_bias,
        trainer.coder.decoder_bias[0],
    )
    for parameter, other in zip(mine, parameters, strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weighting", ["sum_of_norms", "concatenated_norm"])
def test_gradient_of_the_weighted_l1_is_the_closed_formula(weighting: str) -> None:
    f = torch.rand(7, 5, generator=generator(), dtype=torch.float64, requires_grad=True)
    decoder = torch.randn(5, 3, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    weighted_l1(f, decoder, weighting).backward()  # type: ignore[arg-type]
    w, mass = decoder.detach(), f.detach().mean(dim=0)
    if weighting == "sum_of_norms":
        weight = w.norm(dim=2).sum(dim=1)
        slope = w / w.norm(dim=2, keepdim=True)
    else:
        weight = w.flatten(1).norm(dim=1)
        slope = w / weight[:, None, None]
    assert f.grad is not None
    assert decoder.grad is not None
    torch.testing.assert_close(f.grad, (weight / 7).expand(7, 5))
    torch.testing.assert_close(decoder.grad, mass[:, None, None] * slope)


def test_the_weightings_agree_on_one_site_and_bound_each_other() -> None:
    decoder = torch.randn(6, 5, 4, generator=generator())
    alone = decoder * (torch.arange(5) == 2)[:, None]
    both = [decoder_weight(alone, w) for w in ("sum_of_norms", "concatenated_norm")]
    torch.testing.assert_close(*both)
    total, joined = (decoder_weight(decoder, w) for w in ("sum_of_norms", "concatenated_norm"))
    assert bool((joined <= total).all())
    assert bool((total <= math.sqrt(5) * joined + 1e-5).all())


def test_reconstruction_loss_is_a_sum_over_sites_and_a_mean_over_tokens() -> None:
    a, b = torch.zeros(4, 2, 3), torch.zeros(4, 2, 3)
    b[1, 0, 0], b[2, 1, 2] = 2.0, 1.0
    assert reconstruction_loss(a, b) == (4.0 + 1.0) / 4


def test_auxiliary_loss_uses_dead_latents_alone() -> None:
    residual = torch.randn(40, 2, 4, generator=generator())
    pre = torch.randn(40, 6, generator=generator(1)).requires_grad_()
    decoder = torch.randn(6, 2, 4, generator=generator(2)).requires_grad_()
    dead = torch.tensor([False, True, False, False, True, True])
    loss = auxiliary_loss(residual, pre, decoder, dead, 2)
    loss.backward()
    assert pre.grad is not None
    assert decoder.grad is not None
    assert bool((decoder.grad[~dead] == 0).all())
    assert bool((decoder.grad[dead].flatten(1).norm(dim=1) > 0).all())
    assert bool((pre.grad[:, ~dead] == 0).all())
    assert int((pre.grad != 0).sum(dim=1).max()) <= 2
    assert auxiliary_loss(residual, pre, decoder, torch.zeros(6).bool(), 2) == 0.0
    # Silent dead latents rebuild nothing: only the mean of the residual is above the variance.
    silent = auxiliary_loss(residual, -pre.abs(), decoder, dead, 2)
    spread = (residual - residual.mean(dim=0)).square().sum()
    torch.testing.assert_close(silent, residual.square().sum() / spread)


@pytest.mark.parametrize("norm", ["none", "global", "site"])
@pytest.mark.parametrize("centre", [False, True])
def test_norm_modes(norm: str, centre: bool) -> None:
    scales = torch.tensor([0.1, 3.0, 20.0])[:, None]
    sample = scales * (torch.randn(500, 3, 6, generator=generator()) + 0.4)
    coder = random_coder(norm=norm, centre=centre)
    coder.calibrate(sample)
    x = coder.normalise(sample)
    torch.testing.assert_close(coder.denormalise(x), sample)
    torch.testing.assert_close(x.mean(dim=0), coder.decoder_bias.detach(), rtol=1e-4, atol=1e-4)
    norms = x.norm(dim=-1).mean(dim=0)
    before = (sample - coder.shift).norm(dim=-1).mean(dim=0)
    if norm == "site":
        torch.testing.assert_close(norms, torch.full((3,), 6**0.5))
    else:
        torch.testing.assert_close(norms / norms[0], before / before[0])
    if norm == "global":
        torch.testing.assert_close(norms.mean(), torch.tensor(6**0.5))
    if norm == "none":
        torch.testing.assert_close(norms, before)
    assert bool((coder.shift == 0).all()) != centre
    raw = coder.decoder_norms(raw=True) * coder.scale
    torch.testing.assert_close(raw, coder.decoder_norms())


def test_a_dead_site_cannot_be_normalised() -> None:
    sample = torch.randn(10, 3, 6, generator=generator())
    sample[:, 1] = 0.0
    with pytest.raises(ValueError, match=r"calibrate: sample: expected a positive mean norm"):
        random_coder(norm="site").calibrate(sample)
    random_coder(norm="global").calibrate(sample)


def test_bad_settings_are_worded() -> None:
    with pytest.raises(ValueError, match=r"activation: expected one of l1, topk, batch_topk"):
        CrosscoderConfig(activation="top_k")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"k: expected at most n_latents=8, got 16"):
        CrosscoderConfig(n_latents=8)
    with pytest.raises(ValueError, match=r"a: expected shape \[N, 3, 6\], got \[2, 6, 3\]"):
        random_coder()(torch.zeros(2, 6, 3))
    with pytest.raises(ValueError, match=r"lr: expected a positive number, got 0"):
        CrosscoderConfig(lr=0)
