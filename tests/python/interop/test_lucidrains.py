"""The call shapes of hyper-connections, after that package's documentation."""

from __future__ import annotations

from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams.interop.lucidrains import (
    from_streams,
    get_init_and_expand_reduce_stream_functions,
    mc_get_init_and_expand_reduce_stream_functions,
    to_streams,
)
from torch import Tensor, nn

FACTORIES = [
    get_init_and_expand_reduce_stream_functions,
    mc_get_init_and_expand_reduce_stream_functions,
]


@pytest.fixture
def branch() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(32, 32)


@pytest.fixture
def residual() -> Tensor:
    return torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))


def test_stream_layout() -> None:
    """Stream i of element b is row b n + i."""
    x = torch.arange(2 * 3 * 5 * 7.0).view(6, 5, 7)
    streams = to_streams(x, 3)
    assert streams.shape == (2, 5, 3, 7)
    assert torch.equal(streams[1, :, 2], x[1 * 3 + 2])
    assert torch.equal(from_streams(streams), x)
    with pytest.raises(ValueError, match=r"residuals: expected shape \[b \* 4, ..., C\], got \[6"):
        to_streams(x, 4)


@pytest.mark.parametrize("factory", FACTORIES)
def test_wrapped_branch(factory: Any, branch: nn.Module, residual: Tensor) -> None:
    init, expand, reduce = factory(4)
    site = init(dim=32, branch=branch)
    x = expand(residual)
    assert x.shape == (8, 7, 32)
    out = reduce(site(x))
    assert out.shape == residual.shape
    out.sum().backward()
    assert all(p.grad is not None for p in site.parameters())


def test_starts_as_the_residual(branch: nn.Module, residual: Tensor) -> None:
    """HC's streams are the plain residual at first; their sum is four times it."""
    init, expand, reduce = get_init_and_expand_reduce_stream_functions(4)
    sites = [init(dim=32, branch=branch, layer_index=k) for k in range(3)]
    assert [site.connection.designated_stream.item() for site in sites] == [0, 1, 2]
    x, plain = expand(residual), residual
    for site in sites:
        x, plain = site(x), plain + branch(plain)
    torch.testing.assert_close(reduce(x), 4 * plain)


@pytest.mark.parametrize("factory", FACTORIES)
def test_without_a_branch_and_decorated(factory: Any, branch: nn.Module, residual: Tensor) -> None:
    init, expand, _ = factory(4, dim=32)
    site = init(layer_index=1)
    x = expand(residual)
    u, add_residual = site(x)
    assert u.shape == residual.shape
    expected = add_residual(branch(u))
    assert torch.equal(site.decorate_branch(branch)(x), expected)
    with pytest.raises(ValueError, match="expected a site without a branch"):
        init(branch=branch).decorate_branch(branch)


def test_branch_with_more_outputs(branch: nn.Module, residual: Tensor) -> None:
    init, expand, _ = get_init_and_expand_reduce_stream_functions(2, dim=32)

    def attention(u: Tensor, scale: float, *, mask: int) -> tuple[Tensor, dict[str, int]]:
        return branch(u) * scale, {"mask": mask}

    site = init(branch=attention)
    out, extra = site(expand(residual), 0.5, mask=3)
    assert out.shape == (4, 7, 32)
    assert extra == {"mask": 3}


@pytest.mark.parametrize("factory", FACTORIES)
def test_disabled(factory: Any, branch: nn.Module, residual: Tensor) -> None:
    for options in ({"num_streams": 4, "disable": True}, {"num_streams": 1}):
        init, expand, reduce = factory(**options)
        assert expand(residual) is residual
        site = init(dim=32, branch=branch, layer_index=2)
        assert torch.equal(reduce(site(expand(residual))), residual + branch(residual))
        u, add_residual = init(dim=32)(residual)
        assert torch.equal(add_residual(branch(u)), residual + branch(residual))
        assert torch.equal(init().decorate_branch(branch)(residual), residual + branch(residual))
        assert [name for name, _ in site.named_parameters() if "branch" not in name] == []


def test_one_stream_enabled(branch: nn.Module, residual: Tensor) -> None:
    init, expand, reduce = get_init_and_expand_reduce_stream_functions(1, disable=False)
    site = init(dim=32, branch=branch)
    torch.testing.assert_close(reduce(site(expand(residual))), residual + branch(residual))


def test_stream_embedding(residual: Tensor) -> None:
    _, expand, reduce = get_init_and_expand_reduce_stream_functions(
        3, dim=32, add_stream_embed=True
    )
    (embed,) = expand.parameters()
    assert embed.shape == (3, 32)
    torch.testing.assert_close(reduce(expand(residual)), 3 * residual)
    with torch.no_grad():
        embed[2] += 1
    torch.testing.assert_close(reduce(expand(residual)), 3 * residual + 1)
    with pytest.raises(ValueError, match="dim: expected the width with add_stream_embed=True"):
        get_init_and_expand_reduce_stream_functions(3, add_stream_embed=True)


def test_image_shapes() -> None:
    """Any axes may stand between the batch and the channels."""
    init, expand, reduce = mc_get_init_and_expand_reduce_stream_functions(4, dim=8)
    image = torch.randn(2, 3, 5, 8)
    assert reduce(init(branch=nn.Tanh())(expand(image))).shape == image.shape


def test_options() -> None:
    init, *_ = get_init_and_expand_reduce_stream_functions(4, dim=8, connection="mhc_lite")
    assert init().connection.config.name == "mhc_lite"
    init, *_ = mc_get_init_and_expand_reduce_stream_functions(4, dim=8, sinkhorn_iters=3)
    assert init().connection.config.mixer.iterations == 3
    init, *_ = get_init_and_expand_reduce_stream_functions(4, dim=8, tanh=False)
    assert init().connection.config.read_activation.kind == "none"
    with pytest.raises(ValueError, match="num_fracs: expected 1, got 2"):
        get_init_and_expand_reduce_stream_functions(4, num_fracs=2)
    with pytest.raises(ValueError, match="mixer 'free' has no rounds, got 3"):
        get_init_and_expand_reduce_stream_functions(4, sinkhorn_iters=3)
    with pytest.raises(ValueError, match="connection: expected one of"):
        get_init_and_expand_reduce_stream_functions(4, connection="mcc")


@pytest.mark.parametrize("options", [{}, {"disable": True}])
@pytest.mark.parametrize("name", ["channel_first", "dropout", "num_input_views", "num_fracs"])
def test_init_refuses_what_is_not_there(name: str, options: dict[str, Any]) -> None:
    init, *_ = get_init_and_expand_reduce_stream_functions(4, dim=8, **options)
    message = f"init_hyper_conn: {name}: expected dim, branch and layer_index alone"
    with pytest.raises(TypeError, match=message):
        init(branch=nn.Tanh(), **{name: 1})


def test_init_names_a_missing_width() -> None:
    init, *_ = get_init_and_expand_reduce_stream_functions(4)
    with pytest.raises(TypeError, match=r"init_hyper_conn: dim: expected the width, here or as"):
        init(branch=nn.Tanh())


@pytest.mark.parametrize("disable", [None, True])
@pytest.mark.parametrize("tanh", [False, True])
def test_tanh_needs_a_connection_with_tanh(tanh: bool, disable: bool | None) -> None:
    options: dict[str, Any] = {"tanh": tanh, "disable": disable}
    match = f"tanh: expected None with connection 'lucidrains_mhc', .*, got {tanh}"
    with pytest.raises(ValueError, match=match):
        mc_get_init_and_expand_reduce_stream_functions(4, dim=8, **options)
    init, *_ = get_init_and_expand_reduce_stream_functions(4, dim=8, tanh=tanh)
    expected = "tanh" if tanh else "none"
    assert init().connection.config.mix_activation.kind == expected


def test_saved_as_that_package_does(residual: Tensor) -> None:
    """A site's parameters go out in the package's layout and come back."""
    init, expand, _ = mc_get_init_and_expand_reduce_stream_functions(4, dim=32)
    site = init(branch=nn.Tanh())
    with torch.no_grad():
        for parameter in site.parameters():
            parameter.normal_()
    again, _ = hs.load_foreign(hs.to_foreign(site.connection, "hyper_connections"))
    copy = init(branch=nn.Tanh())
    copy.connection.load_state_dict(again["site"].state_dict())
    x = expand(residual)
    torch.testing.assert_close(copy(x), site(x))
