"""Training: planted dictionaries are found, seeds and interruptions change nothing, files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hyperstreams.diagnostics.crosscoder import (
    Crosscoder,
    assign,
    evaluate,
    export_saelens,
    load_crosscoder,
    max_cosine,
    save_crosscoder,
    stream_share,
    train_crosscoder,
)
from safetensors.torch import load_file

from .conftest import FEATURES, SITES, Planted, small_config


def trained(planted: Planted, **changes: object) -> Crosscoder:
    calibration = planted.tokens(2048, torch.Generator().manual_seed(5))
    return train_crosscoder(small_config(**changes), planted.batches(), calibration=calibration)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "batch_topk"},
        {"activation": "topk", "k": 3},
        {"activation": "l1", "l1_weight": 0.5},
        {"activation": "l1", "l1_weight": 0.5, "l1_weighting": "concatenated_norm"},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_planted_dictionary_is_recovered(planted: Planted, settings: dict[str, object]) -> None:
    coder = trained(planted, **settings)
    held_out = planted.tokens(4096, torch.Generator().manual_seed(9))
    quality = evaluate(coder, [held_out])
    found = coder.decoder[quality.alive]
    cosine = max_cosine(planted.dictionary, found)
    assert cosine.mean() > 0.95
    assert quality.explained_variance_total > 0.9
    assert 1.0 < quality.l0 < 4.0

    # The planted home of every feature is what its latent's shares say.
    flat = torch.nn.functional.normalize(found.flatten(1), dim=1)
    latent = (planted.dictionary.flatten(1) @ flat.T).argmax(dim=1)
    pi = stream_share(found.norm(dim=-1).view(-1, 1, SITES))[latent]
    assert torch.equal(assign(pi), planted.home)
    assert pi[planted.home < 0].amax() < 0.35


def test_start_alone_does_not_recover_it(planted: Planted) -> None:
    start = Crosscoder(
        small_config(), n_sites=SITES, width=16, generator=torch.Generator().manual_seed(0)
    )
    assert max_cosine(planted.dictionary, start.decoder).mean() < 0.6


def test_threshold_replaces_the_batch(planted: Planted) -> None:
    """At inference about k latents a token, and a token's latents do not depend on the others."""
    coder = trained(planted)
    tokens = planted.tokens(3000, torch.Generator().manual_seed(4))
    latents = coder.encode(tokens)
    assert 1.4 < float((latents > 0).sum(dim=1).double().mean()) < 2.6
    torch.testing.assert_close(coder.encode(tokens[:1]), latents[:1])
    assert float(coder.threshold) > 0


def test_same_seed_same_bits_other_seed_other_start(planted: Planted) -> None:
    first, again, other = (trained(planted, steps=20, seed=s) for s in (3, 3, 4))
    for left, right in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert not torch.equal(first.decoder, other.decoder)


@pytest.mark.parametrize("activation", ["batch_topk", "l1"])
def test_interrupted_training_continues_bit_for_bit(
    planted: Planted, tmp_path: Path, activation: str
) -> None:
    config = small_config(activation=activation, steps=60, checkpoint_every=20, log_every=10)
    calibration = planted.tokens(512, torch.Generator().manual_seed(5))
    whole, history = train_crosscoder(config, planted.batches(), calibration=calibration)
    cut = itertools.islice(planted.batches(), 47)
    with pytest.raises(ValueError, match=r"expected 60 batches, the stream ended after 47"):
        train_crosscoder(config, cut, calibration=calibration, folder=tmp_path)
    resumed, continued = train_crosscoder(
        config, planted.batches(), calibration=calibration, folder=tmp_path
    )
    for left, right in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert continued == history
    finished, recorded = train_crosscoder(config, [], calibration=calibration, folder=tmp_path)
    assert torch.equal(finished.decoder, whole.decoder)
    assert recorded == history
    other = small_config(activation=activation, steps=60, lr=1e-3)
    with pytest.raises(ValueError, match=r"expected the same settings, got other \['lr'"):
        train_crosscoder(other, planted.batches(), calibration=calibration, folder=tmp_path)


def test_dead_latents_come_back(planted: Planted) -> None:
    """Far more latents than features and a high threshold: the auxiliary loss revives some."""
    settings = {"n_latents": 96, "steps": 300, "dead_tokens": 2000, "k": 1}
    held_out = planted.tokens(2048, torch.Generator().manual_seed(9))
    without, with_aux = (
        evaluate(trained(planted, **settings, aux_weight=weight), [held_out]).dead_fraction
        for weight in (0.0, 1.0)
    )
    assert with_aux < without


def test_save_and_load(planted: Planted, tmp_path: Path) -> None:
    coder = trained(planted, steps=15, norm="site", centre=True)
    folder = save_crosscoder(tmp_path / "coder", coder, {"control": "none"})
    save_crosscoder(folder, coder, {"control": "again"})
    loaded, record = load_crosscoder(folder)
    assert record["control"] == "again"
    assert record["config"] == coder.config.flat()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coder"]
    tokens = planted.tokens(64, torch.Generator().manual_seed(1))
    assert torch.equal(loaded(tokens), coder(tokens))
    with pytest.raises(ValueError, match=r"expected a folder with crosscoder.json"):
        load_crosscoder(tmp_path)


@pytest.mark.parametrize("activation", ["l1", "topk", "batch_topk"])
@pytest.mark.parametrize(("norm", "centre"), [("none", False), ("site", True)])
def test_export_reads_back_with_equal_outputs(
    planted: Planted, tmp_path: Path, activation: str, norm: str, centre: bool
) -> None:
    """The forward of the three architectures, from what their published configs say."""
    one = Planted(3.0 * planted.dictionary[:, :1], planted.home)
    coder = trained(one, activation=activation, steps=30, norm=norm, centre=centre, l1_weight=0.1)
    export_saelens(coder, tmp_path, metadata={"hook_name": "blocks.1.attn_hc.hook_streams_in"})
    config = json.loads((tmp_path / "cfg.json").read_text())
    w = load_file(tmp_path / "sae_weights.safetensors")
    assert (config["d_in"], config["d_sae"]) == (16, 32)
    assert {name: list(value.shape) for name, value in w.items() if name != "threshold"} == {
        "W_enc": [16, 32],
        "W_dec": [32, 16],
        "b_enc": [32],
        "b_dec": [16],
    }
    a = one.tokens(200, torch.Generator().manual_seed(2))
    hidden = (a[:, 0] - w["b_dec"] * config["apply_b_dec_to_input"]) @ w["W_enc"] + w["b_enc"]
    acts = hidden.relu()
    if config["architecture"] == "topk":
        acts = torch.zeros_like(acts).scatter_(
            1, (top := hidden.topk(config["k"], dim=1)).indices, top.values.relu()
        )
    elif config["architecture"] == "jumprelu":
        assert w["threshold"].shape == (32,)
        acts = acts * (hidden > w["threshold"])
    else:
        assert config["architecture"] == "standard"
    assert bool((acts > 0).any())
    # A latent within rounding of a threshold may fall on either side of it: at most one in 200.
    close = torch.isclose(acts @ w["W_dec"] + w["b_dec"], coder(a)[:, 0], rtol=1e-4, atol=1e-4)
    assert int((~close.all(dim=1)).sum()) <= 1


@pytest.mark.parametrize("activation", ["l1", "topk", "batch_topk"])
def test_saelens_loads_the_export(planted: Planted, tmp_path: Path, activation: str) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="needs sae-lens")
    one = Planted(3.0 * planted.dictionary[:, :1], planted.home)
    coder = trained(one, activation=activation, steps=30, norm="site", centre=True, l1_weight=0.1)
    export_saelens(coder, tmp_path, metadata={"hook_name": "blocks.1.attn_hc.hook_streams_in"})
    sae = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    assert sae.cfg.metadata.hook_name == "blocks.1.attn_hc.hook_streams_in"
    a = one.tokens(200, torch.Generator().manual_seed(2))
    close = torch.isclose(sae(a[:, 0]), coder(a)[:, 0], rtol=1e-4, atol=1e-4)
    assert int((~close.all(dim=1)).sum()) <= 1  # a latent may lie on a threshold


def test_export_needs_one_site(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export_saelens: coder: expected one site, got 4"):
        export_saelens(trained(planted, steps=1), tmp_path)


def test_number_of_features(planted: Planted) -> None:
    """The planted problem is what its name says: every feature somewhere, a third everywhere."""
    present = planted.dictionary.norm(dim=-1) > 0
    assert present.any(dim=1).all()
    assert int(present.all(dim=1).sum()) == FEATURES // 3
