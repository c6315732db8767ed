"""Shares, assignment, quality numbers and the controls that need no trained model."""

from __future__ import annotations

import pytest
import torch
from hyperstreams.diagnostics.crosscoder import (
    Crosscoder,
    CrosscoderConfig,
    Sites,
    activation_mass,
    assign,
    assignment_sweep,
    decoder_cosine,
    evaluate,
    latent_scaling,
    layer_stream_share,
    leading_stream_counts,
    max_cosine,
    replicate_streams,
    shuffle_streams,
    stream_share,
    strongest_elsewhere,
    train_crosscoder,
)
from torch import Tensor

from .conftest import SITES, Planted, small_config


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_are_exact_on_decoders_set_by_hand() -> None:
    norms = torch.tensor(
        [
            [[3.0, 1.0], [0.0, 4.0]],
            [[2.0, 2.0], [2.0, 2.0]],
            [[0.0, 5.0], [0.0, 0.0]],
        ]
    )
    assert layer_stream_share(norms).tolist() == [
        [[0.75, 0.25], [0.0, 1.0]],
        [[0.5, 0.5], [0.5, 0.5]],
        [[0.0, 1.0], [0.0, 0.0]],
    ]
    pi = stream_share(norms)
    assert pi.tolist() == [[0.375, 0.625], [0.5, 0.5], [0.0, 1.0]]
    assert assign(pi, threshold=0.6).tolist() == [1, -1, 1]
    assert assignment_sweep(pi, (0.5, 0.6, 0.9)) == pytest.approx({0.5: 1, 0.6: 2 / 3, 0.9: 1 / 3})
    # Layer 0: latent 0 and, by the tie, latent 1 in stream 0; the third has no decoder at layer 1.
    assert leading_stream_counts(norms).tolist() == [[2.0, 1.0], [1.0, 1.0]]
    weight = torch.tensor([10.0, 1.0, 0.5])
    assert leading_stream_counts(norms, weight).tolist() == [[11.0, 0.5], [1.0, 10.0]]
    assert activation_mass(weight, norms)[0, 0].tolist() == [30.0, 10.0]


def test_shares_follow_streams_and_ignore_the_size_of_latents() -> None:
    norms = torch.rand(20, 3, 4, generator=generator())
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(stream_share(norms[..., order]), stream_share(norms)[:, order])
    scaled = norms * torch.rand(20, 1, 1, generator=generator(1))
    torch.testing.assert_close(stream_share(scaled), stream_share(norms))
    torch.testing.assert_close(stream_share(norms).sum(dim=-1), torch.ones(20))
    sweep = list(assignment_sweep(stream_share(norms)).values())
    assert sweep == sorted(sweep, reverse=True)


def test_sites_and_variants() -> None:
    sites = Sites((0, 2), 3)
    assert sites.names == ["0.s0", "0.s1", "0.s2", "2.s0", "2.s1", "2.s2"]
    assert sites.groups("joint") == {"joint": [0, 1, 2, 3, 4, 5]}
    assert sites.groups("per_layer") == {"layer0": [0, 1, 2], "layer2": [3, 4, 5]}
    assert sites.groups("per_stream") == {"stream0": [0, 3], "stream1": [1, 4], "stream2": [2, 5]}
    for variant in ("joint", "per_layer", "per_stream"):
        layers, streams = sites.shape_of(variant)  # type: ignore[arg-type]
        groups = sites.groups(variant)  # type: ignore[arg-type]
        assert {len(group) for group in groups.values()} == {layers * streams}
        assert sorted(i for group in groups.values() for i in group) == list(range(6))
    with pytest.raises(ValueError, match=r"layers: expected ascending block indices"):
        Sites((2, 0), 4)
    with pytest.raises(ValueError, match=r"variant: expected one of joint, per_layer, per_stream"):
        sites.groups("layer")  # type: ignore[arg-type]


def test_shuffling_moves_whole_streams_of_a_token_together() -> None:
    a = torch.arange(40.0)[:, None, None] * 100 + torch.arange(6.0)[:, None].expand(6, 2)
    moved = shuffle_streams(a, 3, generator=generator())
    order = moved[..., 0] % 100
    assert torch.equal(order[:, :3] + 3, order[:, 3:])
    assert torch.equal(order[:, :3].sort(dim=1).values, torch.arange(3.0).expand(40, 3))
    assert torch.equal(moved // 100, a // 100)
    assert order[:, :3].unique(dim=0).shape[0] == 6
    assert torch.equal(moved, shuffle_streams(a, 3, generator=generator()))


def one_stream(tokens: Tensor) -> Tensor:
    return replicate_streams(tokens, SITES)


def test_identical_streams_give_equal_shares(planted: Planted) -> None:
    tokens = one_stream(planted.tokens(64, generator()))
    assert torch.equal(tokens, tokens[:, :1].expand_as(tokens))
    calibration = one_stream(planted.tokens(2048, generator(5)))
    config = small_config(steps=400)
    batches = (one_stream(batch) for batch in planted.batches())
    coder, _ = train_crosscoder(config, batches, calibration=calibration)
    quality = evaluate(coder, [one_stream(planted.tokens(2048, generator(9)))])
    norms = coder.decoder_norms()[quality.alive].view(-1, 1, SITES)
    torch.testing.assert_close(
        stream_share(norms), torch.full((norms.shape[0], SITES), 0.25), atol=0.02, rtol=0
    )
    ratio = latent_scaling(coder.decoder, quality.moment, quality.square_latent, SITES)
    assert bool(((ratio[quality.alive] - 1).abs() < 0.1).all())


def test_shuffled_streams_give_uniform_shares_on_average(planted: Planted) -> None:
    """All planted features in one stream; without labels their share must spread evenly."""
    home = Planted(planted.dictionary * (torch.arange(SITES) == 1)[:, None], planted.home)
    kept = home.dictionary.norm(dim=-1).amax(dim=1) > 0
    home = Planted(home.dictionary[kept], home.home[kept])
    calibration = home.tokens(2048, generator(5))

    def mean_share(shuffle: bool) -> Tensor:
        mixer = generator(11)

        def view(a: Tensor) -> Tensor:
            return shuffle_streams(a, SITES, generator=mixer) if shuffle else a

        config = small_config(norm="none" if not shuffle else "site", steps=300, n_latents=64)
        batches = (view(batch) for batch in home.batches())
        coder, _ = train_crosscoder(config, batches, calibration=view(calibration))
        alive = evaluate(coder, [view(home.tokens(2048, generator(9)))]).alive
        return stream_share(coder.decoder_norms()[alive].view(-1, 1, SITES)).mean(dim=0)

    assert mean_share(False)[1] > 0.85
    assert (mean_share(True) - 0.25).abs().max() < 0.08


def hand_set(activation: str = "l1") -> Crosscoder:
    """Two latents over two streams of width 2: e0 in stream 0 only, e1 in both (half in 1)."""
    config = CrosscoderConfig(n_latents=3, k=1, activation=activation, norm="none")  # type: ignore[arg-type]
    coder = Crosscoder(config, n_sites=2, width=2)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.zero_()
        coder.encoder[0, 0, 0] = coder.encoder[0, 1, 1] = 1.0
        coder.decoder[0, 0, 0] = coder.decoder[1, 0, 1] = 1.0
        coder.decoder[1, 1, 1] = 0.5
    return coder


def test_latent_scaling_tells_artefacts_from_exclusive_features() -> None:
    coder = hand_set()
    f = torch.rand(500, 2, generator=generator()) * (
        torch.rand(500, 2, generator=generator(1)) < 0.05
    )
    # Latent 0 is in stream 1 as well, at 0.8, although its decoder there is zero; both rarely fire.
    a = torch.stack([f, f * torch.tensor([0.8, 0.5])], dim=1)
    quality = evaluate(coder, [a])
    ratio = latent_scaling(coder.decoder, quality.moment, quality.square_latent, 2)
    torch.testing.assert_close(
        ratio[:2], torch.tensor([[1.0, 0.8], [1.0, 0.5]], dtype=torch.float64)
    )
    assert bool(ratio[2].isnan().all())
    torch.testing.assert_close(
        strongest_elsewhere(ratio)[:2], torch.tensor([0.8, 0.5], dtype=torch.float64)
    )
    a[:, 1, 0] = 0.0
    quality = evaluate(coder, [a])
    ratio = latent_scaling(coder.decoder, quality.moment, quality.square_latent, 2)
    assert float(ratio[0, 1]) == pytest.approx(0.0, abs=1e-6)


def test_copies_are_as_strong_elsewhere_and_one_stream_has_no_elsewhere() -> None:
    ratio = torch.tensor([[1.0, 1.0, 1.0], [0.2, 1.0, -0.3], [torch.nan] * 3]).double()
    found = strongest_elsewhere(ratio)
    assert found[:2].tolist() == [1.0, pytest.approx(0.2)]
    assert bool(found[2].isnan())
    assert bool(strongest_elsewhere(torch.ones(4, 1)).isnan().all())


def test_explained_variance_is_a_ratio_of_sums() -> None:
    """Batches of very different variance: a mean of ratios would give another number."""
    coder = hand_set()
    small, large = (
        torch.rand(64, 2, 2, generator=generator()),
        torch.rand(64, 2, 2, generator=generator(1)),
    )
    batches = [0.01 * small, 10.0 * large]
    quality = evaluate(coder, batches)
    a = torch.cat(batches).double()
    rebuilt = torch.stack([a[:, 0], 0.5 * a[:, 0] * torch.tensor([0.0, 1.0])], dim=1)
    errors = (a - rebuilt).square().sum(dim=(0, 2))
    spread = (a - a.mean(dim=0)).square().sum(dim=(0, 2))
    torch.testing.assert_close(quality.explained_variance, 1 - errors / spread)
    total = float(1 - errors.sum() / spread.sum())
    assert quality.explained_variance_total == pytest.approx(total)
    assert quality.explained_variance_total_raw == pytest.approx(total)
    ratios = [evaluate(coder, [batch]).explained_variance_total for batch in batches]
    assert abs(sum(ratios) / 2 - total) > 0.01
    assert quality.tokens == 128
    assert quality.density.tolist() == [1.0, 1.0, 0.0]
    assert quality.l0 == 2.0
    assert quality.dead_fraction == pytest.approx(1 / 3)
    assert sum(quality.summary()["density_histogram"]["counts"]) == 2
    with pytest.raises(ValueError, match=r"evaluate: batches: expected at least one token"):
        evaluate(coder, [])


def test_decoder_cosine_and_max_cosine() -> None:
    decoder = torch.randn(8, 3, 5, generator=generator())
    decoder[:, 1] = -2.0 * decoder[:, 0]
    cosine = decoder_cosine(decoder, torch.ones(8).bool())
    torch.testing.assert_close(cosine.diagonal(), torch.ones(3).double())
    assert float(cosine[0, 1]) == pytest.approx(-1.0)
    assert abs(float(cosine[0, 2])) < 0.6
    assert bool((max_cosine(decoder, 3.0 * decoder[torch.randperm(8)]) > 0.999).all())
    assert float(max_cosine(decoder, -decoder).max()) < 0.999
