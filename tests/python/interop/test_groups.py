"""Which tensors make a site: incomplete ones are errors, alike ones are told apart or reported."""

from __future__ import annotations

from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams.interop.sources import SOURCES
from hyperstreams.nn import Connection
from torch import Tensor

CONTENT = {name: source for name, source in SOURCES.items() if source.pattern is None}
LACKING = [
    (source.name, layout.name, tensor)
    for source in CONTENT.values()
    for layout in source.layouts
    for tensor in layout.names
]


def site(connection: str, n: int = 4) -> Connection:
    generator = torch.Generator().manual_seed(n)
    made = Connection(connection=connection, n_streams=n, width=5, generator=generator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=generator)
    return made


def foreign(source: str, layout: str, prefix: str = "", n: int = 4) -> dict[str, Tensor]:
    (found,) = (part for part in SOURCES[source].layouts if part.name == layout)
    return {prefix + name: value for name, value in found.save(site(found.connection, n)).items()}


@pytest.mark.parametrize(("source", "layout", "tensor"), LACKING)
@pytest.mark.parametrize("strict", [True, False])
def test_a_site_that_lacks_a_tensor(source: str, layout: str, tensor: str, strict: bool) -> None:
    """Beside a complete one, and alone: never a tensor outside the connections."""
    whole = foreign(source, layout, "blocks.0.")
    second = foreign(source, layout, "blocks.1.")
    del second[f"blocks.1.{tensor}"]
    for checkpoint in ({**whole, **second}, second):
        for options in ({}, {"source": source}):
            with pytest.raises(ValueError, match=rf"blocks\.1\.: missing {tensor} \(layout"):
                hs.load_foreign(checkpoint, strict=strict, **options)


def test_one_tensor_found_nowhere_else_makes_a_site() -> None:
    whole = foreign("liger", "liger", "a.")
    with pytest.raises(ValueError, match=r"b\.: missing alpha_post, alpha_pre, b, phi"):
        hs.load_foreign({**whole, "b.alpha_res": torch.ones(())})
    for name in ("phi", "b", "alpha", "beta", "norm.gamma", "branch.norm.gamma"):
        _, report = hs.load_foreign({**whole, f"other.{name}": torch.ones(3)})
        assert report.dropped == ["1 tensors outside the connections"]
    tensors = foreign("hyper_connections", "hc")
    _, report = hs.load_foreign({**tensors, "branch.0.norm.gamma": torch.ones(3)})
    assert report.dropped == ["1 tensors outside the connections"]


def test_a_complete_site_tells_the_source() -> None:
    """Whatever another source's tensors are beside it."""
    whole = foreign("transformer_engine", "transformer_engine", "a.")
    modules, report = hs.load_foreign({**whole, "b.alpha_res": torch.ones(())})
    assert report.source == "transformer_engine"
    assert list(modules) == ["a"]


@pytest.mark.parametrize("kind", ["mhc_lite", "kromhc"])
def test_two_streams_of_mhc_lite_and_kromhc(kind: str) -> None:
    tensors = foreign("hyper_connections", kind, n=2)
    recorded = {"mhc_lite": ["mhc_lite", "mhc_lite_lss"], "kromhc": ["kromhc"]}[kind]
    for name in recorded:
        settings = {"hyper_conn_type": name}
        for checkpoint, options in (
            (tensors, {"config": settings}),
            ({"model": tensors, "model_args": settings}, {}),
        ):
            modules, report = hs.load_foreign(checkpoint, **options)
            assert modules["site"].config.name == kind
            assert report.assumed == []
    modules, report = hs.load_foreign(tensors)
    assert modules["site"].config.name == "mhc_lite"
    (line,) = report.assumed
    assert line.startswith("hyper_conn_type=mhc_lite: kromhc has the same shapes")
    # Assumed or not, it is the same function.
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    for ours, expected in zip(modules["site"](x), site(kind, 2)(x), strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_recorded_name_that_the_shapes_contradict() -> None:
    tensors = foreign("hyper_connections", "kromhc")
    modules, report = hs.load_foreign(tensors, config={"hyper_conn_type": "mhc_lite"})
    assert modules["site"].config.name == "kromhc"
    (line,) = report.assumed
    assert line.startswith("hyper_conn_type=kromhc: the tensors have its shapes, not those of mhc")
    for other in ({}, {"hyper_conn_type": "kromhc"}, {"hyper_conn_type": "another"}):
        settings: dict[str, Any] = other
        _, report = hs.load_foreign(tensors, config=settings)
        assert report.assumed == []
