"""Capture: sums merge exactly, and the quantities made of them match per-token computation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy
import pytest
import torch
from hyperstreams import ops
from hyperstreams.diagnostics import QUANTITIES, Capture, capture, geometry, metrics, quantity
from torch import Tensor, nn

N, WIDTH, SITES = 3, 6, 4


class Stack(nn.Module):
    """Four sites with random signed coefficients: the smallest thing with the model's interface."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(11, N, WIDTH, generator=generator).double())
        self.maps = nn.Parameter(torch.randn(SITES, WIDTH, WIDTH, generator=generator).double())
        self.mix = nn.Parameter(torch.rand(SITES, N, N, generator=generator).double())
        self.config = SimpleNamespace(n_streams=N)
        self.site_names = ["L0a", "L0m", "L1a", "L1m"]

    def trace(self, tokens: Tensor) -> tuple[list[dict[str, Tensor | None]], Tensor]:
        x = self.table[tokens]
        sites: list[dict[str, Tensor | None]] = []
        for k in range(SITES):
            gate = torch.sigmoid(x @ self.maps[k]).mean(-1)
            y = torch.tanh(ops.read(x, gate) @ self.maps[k])
            h_res = self.mix[k] * gate.unsqueeze(-1)
            sites.append({"x": x, "y": y, "h_pre": gate, "h_post": 1 - gate, "h_res": h_res})
            x = ops.mix_write(x, y, h_res, 1 - gate)
        sites.append({"x": x, "y": None, "h_pre": None, "h_post": None, "h_res": None})
        return sites, x

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, *, collect_stats: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        assert collect_stats
        assert not self.training
        assert not torch.is_grad_enabled()
        sites, x = self.trace(tokens)
        stats = []
        for site in sites:
            x_k, y = site.pop("x"), site.pop("y")
            assert x_k is not None
            stats.append(ops.stream_stats(x_k, y, **site))
        loss = None if targets is None else x.sum() / targets.numel()
        return x, loss, torch.stack(stats)


def batches(count: int = 4, size: int = 2, length: int = 9) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randint(0, 11, (count * size, length), generator=generator)
    return [(part, part) for part in rows.split(size)]


def test_counts_names_and_mode() -> None:
    model = Stack()
    result = capture(model, batches(), details={"seed": 7})
    assert result.tokens == 4 * 2 * 9
    assert result.state_names == ("L0a", "L0m", "L1a", "L1m", "readout")
    assert result.details == {"seed": 7}
    assert result.batches == 4
    assert model.training
    with pytest.raises(ValueError, match="capture: batches: expected at least one"):
        capture(model, [])


def test_split_and_merge_do_not_change_the_sums() -> None:
    model, data = Stack(), batches()
    whole = capture(model, [(torch.cat([t for t, _ in data]), torch.cat([t for _, t in data]))])
    parts = [capture(model, [batch]) for batch in data]
    merged = parts[0].merge(*parts[1:])
    backwards = parts[3].merge(parts[2], parts[1], parts[0])
    for name in QUANTITIES:
        expected = quantity(name, whole)
        assert torch.allclose(quantity(name, merged), expected, rtol=1e-10, atol=1e-12), name
        assert torch.allclose(quantity(name, backwards), expected, rtol=1e-10, atol=1e-12), name
    assert merged.mean_loss == pytest.approx(whole.mean_loss)
    assert torch.equal(merged.batch(2).sums, parts[2].sums)


def test_quantities_equal_their_per_token_definitions() -> None:
    model, data = Stack(), batches()
    result = capture(model, data)
    with torch.no_grad():
        sites, _ = model.trace(torch.cat([tokens for tokens, _ in data]))
    for k, site in enumerate(sites[:-1]):
        x, y, p, q, r = (site[key] for key in ("x", "y", "h_pre", "h_post", "h_res"))
        assert x is not None
        assert y is not None
        assert p is not None
        assert q is not None
        assert r is not None
        gram = geometry.extended_gram(x, y).flatten(0, 1)
        norm = geometry.stream_norm(gram)[:, :N]
        p, q, r = p.flatten(0, 1), q.flatten(0, 1), r.flatten(0, 1)
        eye = torch.eye(N, dtype=torch.float64)
        expected = {
            "read_share": metrics.mean_share(p),
            "write_share": metrics.mean_share(q),
            "read_share_ratio_of_means": metrics.mean_share(p, average="ratio_of_means"),
            "read_signal_share": metrics.read_signal_share(p, norm).mean(0),
            "write_signal_share": metrics.write_signal_share(q).mean(0),
            "read_effective_streams_token": metrics.entropy(metrics.share(p)).mean().exp(),
            "write_dominance": metrics.dominance(metrics.mean_share(q)),
            "off_diagonal_mass": metrics.off_diagonal_mass(r).mean(),
            "identity_distance": ((r - eye).square().sum((-2, -1)).mean() / (2 * N)).sqrt(),
            "token_variation": (r - r.mean(0)).square().sum((-2, -1)).mean()
            / (r.mean(0) - eye).square().sum(),
            "norm": norm.mean(0),
            "norm_share": geometry.norm_share(norm.mean(0)),
            "cosine": geometry.stream_cosine(gram[:, :N, :N]).mean(0),
            "differential_energy": geometry.differential_energy(gram[:, :N, :N]).mean(),
            "curvature": torch.rad2deg(geometry.token_curvature(x)[0]),
            "position_curvature": torch.rad2deg(geometry.position_curvature(x)[0]),
        }
        for name, value in expected.items():
            assert torch.allclose(quantity(name, result)[k], value, rtol=1e-8), (name, k)


def test_means_are_of_sums_only() -> None:
    result = capture(Stack(), batches())
    for name in ops.stream_stats_fields(N):
        if name.endswith(("_min", "_max", "count")):
            with pytest.raises(ValueError, match=rf"Capture\.mean: name: .*total\('{name}'\)"):
                result.mean(name)
            assert result.total(name).shape[0] == SITES + 1
        else:
            assert result.mean(name).isfinite().all(), name
    assert (result.total("h_pre_min")[:-1] <= result.mean("h_pre")).all()
    with pytest.raises(ValueError, match="Capture: field: expected one of"):
        result.mean("h_mix_min")


def test_every_quantity_has_its_shape() -> None:
    result = capture(Stack(), batches())
    sizes = {"site": SITES, "stream": N, "destination": N, "source": N, "other": N}
    for name, q in QUANTITIES.items():
        value = quantity(name, result)
        rows = SITES + (q.rows == "state")
        shape = [rows, *(sizes[axis] for axis in q.axes.split(",")[1:])]
        assert list(value.shape) == shape, name
        assert value.isfinite().all(), name
        assert len(q.row_names(result)) == rows
    with pytest.raises(ValueError, match="quantity: name: expected one of read_share"):
        quantity("collapse", result)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_saved_captures_come_back_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    result = capture(Stack(), [(tokens,) for tokens, _ in batches()], details={"split": "held out"})
    assert result.loss.isnan().all()
    result.save(tmp_path / f"capture{suffix}")
    back = Capture.load(tmp_path / f"capture{suffix}")
    assert torch.equal(back.sums, result.sums)
    assert back.loss.isnan().all()
    assert (back.site_names, back.details) == (result.site_names, result.details)
    with pytest.raises(ValueError, match=r"expected \.json or \.npz"):
        result.save(tmp_path / "capture.pt")


def test_an_interrupted_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "capture.npz"
    result = capture(Stack(), [(tokens,) for tokens, _ in batches()])
    result.save(path)

    def cut_short(file: BinaryIO, **arrays: object) -> None:
        file.write(b"PK half an archive")
        raise KeyboardInterrupt

    monkeypatch.setattr(numpy, "savez_compressed", cut_short)
    with pytest.raises(KeyboardInterrupt):
        result.save(path)
    assert torch.equal(Capture.load(path).sums, result.sums)
    assert list(tmp_path.glob("*.npz")) == [path]


def test_captures_without_ranges_are_read_with_nan(tmp_path: Path) -> None:
    result = capture(Stack(), batches())
    path = tmp_path / "capture.json"
    result.save(path)
    stored = json.loads(path.read_text())
    ranges = [name for name in stored["fields"] if name.endswith(("_m2", "_min", "_max"))]
    size = 3 * (2 * N + N * N)
    for name in ranges:
        del stored["fields"][name]
    stored["sums"] = [[row[:-size] for row in part] for part in stored["sums"]]
    path.write_text(json.dumps(stored))
    back = Capture.load(path)
    assert torch.equal(back.sums[..., :-size], result.sums[..., :-size])
    assert len(ranges) == 9
    for name in ("read_variance", "write_min", "mixer_max"):
        assert quantity(name, back).isnan().all()
    assert torch.equal(quantity("token_variation", back), quantity("token_variation", result))
    del stored["fields"]["norm"]
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="written with other fields"):
        Capture.load(path)


def test_bad_captures_are_refused() -> None:
    result = capture(Stack(), batches())
    with pytest.raises(ValueError, match="Capture: sums: expected shape"):
        Capture(result.sums[..., :-1], N, result.site_names, result.loss)
    with pytest.raises(ValueError, match="Capture: loss: expected one value per batch"):
        Capture(result.sums, N, result.site_names, result.loss[:-1])
    other = Capture(result.sums, N, ("a", "b", "c", "d"), result.loss)
    with pytest.raises(ValueError, match=r"Capture\.merge: expected 3 streams"):
        result.merge(other)
    with pytest.raises(ValueError, match="Capture: field: expected one of"):
        result.total("h_mix")
