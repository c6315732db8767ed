"""Connections whose sites are not the canonical one, against their formulas written out."""

from __future__ import annotations

from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams.nn.families.active_streams import ActiveStreamsSite
from hyperstreams.nn.families.segments import SegmentSite
from hyperstreams.nn.families.single_pass import SinglePassState
from torch import Tensor, nn

F64 = torch.float64
TOKENS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))


def scramble(module: nn.Module, std: float = 0.5) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=F64)
    return module


def streams(n: int, width: int) -> Tensor:
    return torch.randn(3, n, width, dtype=F64, generator=torch.Generator().manual_seed(2))


def model(connection: str, **options: Any) -> hs.GPT:
    config = hs.GPTConfig(
        vocab_size=50, block_size=9, n_layer=2, n_head=2, width=24, connection=connection, **options
    )
    return hs.GPT(config, generator=torch.Generator().manual_seed(3), dtype=F64)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("norm", ["layer", "rms", "static"])
def test_segments_formula(diagonal: bool, norm: Any) -> None:
    m, w, tau = 2, 5, 3.0
    n = m if diagonal else 4
    branch = nn.Linear(m * w, m * w, dtype=F64)
    options: dict[str, Any] = {} if norm == "static" else {"norm": norm, "temperature": tau}
    site = SegmentSite(
        branch,
        n_segments=n,
        fractions=m,
        width=m * w,
        dynamic=norm != "static",
        diagonal_write=diagonal,
        dtype=F64,
        **options,
    )
    scramble(site)
    x = streams(n, w)
    for row, result in zip(x, site(x), strict=True):
        read, mix = site.read.clone(), site.mix.clone()
        write = torch.diag(site.write) if diagonal else site.write.clone()
        if site.phi is not None and site.scale is not None:
            for i in range(n):
                if norm == "layer":
                    centred = row[i] - row[i].mean()
                    z = centred / (centred.square().mean() + 1e-5).sqrt()
                    z = z * site.norm_weight + site.norm_bias
                else:
                    z = row[i] / (row[i].square().mean() + 1e-6).sqrt()
                d = torch.tanh(site.phi @ z / tau)
                read[i] += site.scale[0] * d[:m]
                mix[i] += site.scale[0] * d[m : m + n]
                if diagonal:
                    write[i, i] += site.scale[1] * d[m + n]
                else:
                    write[:, i] += site.scale[1] * d[m + n :]
        u = [sum(read[i, k] * row[i] for i in range(n)) for k in range(m)]
        y = branch(torch.cat(u)).view(m, w)
        for j in range(n):
            expected = sum(mix[i, j] * row[i] for i in range(n))
            expected = expected + sum(write[k, j] * y[k] for k in range(m))
            torch.testing.assert_close(result[j], expected)


def extra_parameters(name: str, n: int, sites: int = 4) -> float:
    count = sum(p.numel() for p in model(name, n_streams=n).sites.parameters())
    return (count - sum(p.numel() for p in model("residual").sites.parameters())) / sites


@pytest.mark.parametrize("m", [2, 4])
def test_frac_is_pre_norm_at_first_and_has_the_papers_parameters(m: int) -> None:
    plain = model("residual")(TOKENS)[0]
    for name in ("frac", "frac_static"):
        assert torch.equal(model(name, n_streams=m)(TOKENS)[0], plain)
    assert extra_parameters("frac_static", m) == 2 * m**2 + m
    assert extra_parameters("frac", m) == 2 * m**2 + m + (24 // m) * (2 * m + 3) + 2


@pytest.mark.parametrize("name", ["vwn", "vwn_static"])
def test_vwn_starts_as_pre_norm_behind_one_more_norm(name: str) -> None:
    plain = model("residual", final_norm="after_reduce")(TOKENS)[0]
    for n in (2, 6):
        torch.testing.assert_close(model(name, n_streams=n)(TOKENS)[0], plain, atol=2e-3, rtol=2e-2)


def site_of_xhc(n: int = 6, width: int = 5) -> ActiveStreamsSite:
    site = ActiveStreamsSite(
        nn.Linear(width, width, dtype=F64), n_streams=n, width=width, active=4, fixed=2, dtype=F64
    )
    scramble(site)
    return site


def test_xhc_formula() -> None:
    n, k = 6, 4
    site = site_of_xhc(n)
    x = streams(n, 5)
    for row, result in zip(x, site(x), strict=True):
        flat = row.flatten()
        z = flat / (flat.square().mean() + 1e-6).sqrt()
        u = torch.sigmoid(site.alpha[0] * site.read_phi @ z + site.read_bias) @ row
        centred = flat - flat.mean()
        router = torch.sigmoid(site.route @ (centred / (centred.square().mean() + 1e-5).sqrt()))
        chosen = sorted(range(2, n), key=lambda i: -router[i].item())[: k - 2]
        index = [0, 1, *chosen]
        active = row[index]
        z = active.flatten() / (active.square().mean() + 1e-6).sqrt()
        z = site.phi @ z
        post = 2 * torch.sigmoid(site.alpha[1] * z[:k] + site.bias[:k])
        p = (site.alpha[2] * z[k:] + site.bias[k:]).view(k, k).exp()
        for _ in range(20):
            p = p / p.sum(0, keepdim=True)
            p = p / p.sum(1, keepdim=True)
        p = p / p.sum(1, keepdim=True).clamp(min=1.0)
        weight = torch.cat([torch.ones(2, dtype=F64), router[chosen]])
        expected = row.clone()
        expected[index] = p @ active + torch.outer(weight * post, site.branch(u))
        torch.testing.assert_close(result, expected)


def test_xhc_updates_only_active_streams_and_trains_its_router() -> None:
    site = site_of_xhc()
    x = streams(6, 5)
    changed = (site(x) != x).any(-1)
    assert torch.equal(changed.sum(-1), torch.full((3,), 4))
    assert changed[:, :2].all()
    site(x).square().sum().backward()
    for name, parameter in site.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_xhc_breaks_ties_by_index() -> None:
    """The router starts at 0: every weight is 1/2, and the first streams are active."""
    for n in (6, 16):
        site = ActiveStreamsSite(nn.Identity(), n_streams=n, width=5, active=4, fixed=2, dtype=F64)
        index, weight = site.select(streams(n, 5))
        assert torch.equal(index, torch.tensor([0, 1, 2, 3]).expand(3, 4))
        assert torch.equal(weight, torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=F64).expand(3, 4))


def test_xhc_parameters() -> None:
    """Without the temporal components: (4 N^2 + 2 k^3 + 2 k^2) C per block, plus vectors."""
    n, k, width = 16, 4, 24
    per_site = extra_parameters("xhc", n)
    assert per_site == (2 * n**2 + k**3 + k**2) * width + 3 + n + k + k * k


def test_single_pass_reads_with_the_previous_sites_weights() -> None:
    gpt = model("deepseek_v4_single_pass", n_streams=3)
    scramble(gpt, 0.1)
    h = streams(1, 24)[:, 0].unsqueeze(0)
    state = gpt.expand(h)
    assert torch.equal(state.h_pre, torch.tensor([1.0, 0.0, 0.0], dtype=F64))
    for site in gpt.sites.values():
        h_pre, h_post, h_res = site.connection.coefficients(state.x)
        h_read = state.h_pre.expand(state.x.shape[:-1])
        u = torch.einsum("...n,...nc->...c", h_read, state.x)
        y = site.branch(u)
        x = torch.einsum("...ji,...ic->...jc", h_res, state.x)
        x = x + h_post.unsqueeze(-1) * y.unsqueeze(-2)
        result = site(state)
        torch.testing.assert_close(result.tensor, x)
        torch.testing.assert_close(result.h_pre, h_pre)
        state = SinglePassState(x, h_pre)
    pending = gpt.expand(h)
    for site in gpt.sites.values():
        pending = site(pending)  # without materialising between sites
    torch.testing.assert_close(pending.tensor, state.x)


@pytest.mark.parametrize(
    ("name", "n", "words"),
    [
        ("frac", 5, r"width: expected a multiple of n_streams=5 fractions, got 24"),
        ("vwn", 3, r"n_streams: expected a multiple of fractions=2, got 3"),
        ("xhc", 3, r"n_streams: expected 4 \(the active ones\) to 16, got 3"),
    ],
)
def test_sizes_that_do_not_exist(name: str, n: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model(name, n_streams=n)


def test_fused_ops() -> None:
    fused = {name: hnn.find_connection(name).fused_ops for name in ("vwn", "vwn_static", "frac")}
    assert fused == {"vwn": ("project",), "vwn_static": (), "frac": ()}


def test_a_wider_virtual_width() -> None:
    wide = hnn.families.segments.VirtualWidth("vwn_8x", "-", fractions=4)
    plan = hnn.Plan(width=24, n_sites=1, make_norm=nn.LayerNorm, n_streams=32)
    h = torch.randn(2, 24)
    x = hnn.build_expand(wide, plan)(h)
    assert x.shape == (2, 32, 6)
    x = hnn.build_site(wide, nn.Linear(24, 24), site_index=0, plan=plan)(x)
    assert hnn.build_reduce(wide, plan)(x).shape == (2, 24)


def test_operations_are_those_of_the_matrix_products() -> None:
    """Counted by hand for C = 24 and 4 sites; the single pass costs what its connection costs."""

    def operations(name: str, n: int) -> int:
        config = hs.GPTConfig(
            n_layer=2, n_head=2, width=24, connection=name, n_streams=n, vocab_size=8
        )
        return hs.models.operations_table(config)["connections"]

    # m = 4, w = 6: read, mix, write, and phi with 4 + 4 + 1 rows on each of 4 segments.
    assert operations("frac_static", 4) == 4 * 2 * 6 * (16 + 16 + 4)
    assert operations("frac", 4) == 4 * 2 * 6 * (16 + 16 + 4 + 4 * 9)
    # n = 4, m = 2, w = 12, phi with 2 + 4 + 2 rows.
    assert operations("vwn", 4) == 4 * 2 * 12 * (8 + 16 + 8 + 4 * 8)
    assert operations("deepseek_v4_single_pass", 4) == operations("deepseek_v4", 4)
    # n = 6, k = 4: read logits, router, norm, read; write logits, norm, mix, write.
    assert operations("xhc", 6) == 4 * 2 * 24 * (36 + 36 + 6 + 6 + 20 * 4 + 4 + 16 + 4)
