"""Every documented bad argument gives its worded error, on both back ends."""
# ruff: noqa: E501 (one bad argument a line)

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hyperstreams import ops
from hyperstreams.mixers import get_mixer
from hyperstreams.ops._coefficient_settings import coefficient_settings


def t(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


X, Y, H1, H2 = t(2, 3, 4, 8), t(2, 3, 8), t(2, 3, 4), t(2, 3, 4, 4)
BF16, I64, F64 = torch.bfloat16, torch.int64, torch.float64
PHI, NORM, LOGITS, ALPHA, BIAS = t(24, 32), t(32), t(2, 3, 24), t(3), t(24)


def coefficients(*arguments: object, **options: object) -> object:
    given = dict(zip(("logits", "inv_rms", "alpha", "bias"), arguments, strict=False))
    full = {"logits": LOGITS, "inv_rms": None, "alpha": ALPHA, "bias": BIAS, **given}
    return ops.coefficients(**full, **{"n_streams": 4, "mixer": "free", **options})


def boundary(**options: object) -> object:
    tensors = {"x": X, "y": Y, "h_res": H2, "h_post": H1}
    parameters = {"phi": PHI, "norm_weight": None, "alpha": ALPHA, "bias": BIAS}
    return ops.boundary(**{**tensors, **parameters, "n_streams": 4, "mixer": "free", **options})


SINKHORN = (1e-6, 0, *coefficient_settings(get_mixer("sinkhorn"), 4)[1:])
"""The last arguments of the raw boundary."""

BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "x not a tensor": (
        lambda: ops.read([1.0], H1), TypeError, r"read: x: expected a torch.Tensor, got list"),
    "x rank 1": (
        lambda: ops.read(t(8), t(1)), ValueError, r"read: x: expected streams \[..., n, C\].*\(8,\)"),
    "x 0-d": (lambda: ops.read(t(), t(1)), ValueError, r"read: x: expected streams .* got shape \(\)"),
    "x integer": (
        lambda: ops.read(X.long(), H1), TypeError, r"read: x: expected float32, .* got int64"),
    "x bool": (lambda: ops.read(X.bool(), H1), TypeError, r"read: x: .* got bool"),
    "x complex": (lambda: ops.read(X.to(torch.complex64), H1), TypeError, r"got complex64"),
    "17 streams": (
        lambda: ops.read(t(2, 17, 8), t(2, 17)), ValueError, r"read: x: expected 1 to 16 .* n = 17"),
    "0 streams": (lambda: ops.read(t(2, 0, 8), t(2, 0)), ValueError, r"1 to 16 streams .* n = 0"),
    "width 0": (
        lambda: ops.read(t(2, 4, 0), t(2, 4)), ValueError, r"a width C >= 1 .* got shape \(2, 4, 0\)"),
    "h_pre not a tensor": (
        lambda: ops.read(X, 0.5), TypeError, r"read: h_pre: expected a torch.Tensor, got float"),
    "h_pre n": (
        lambda: ops.read(X, t(2, 3, 5)), ValueError,
        r"read: h_pre: expected \[..., n\] = \(2, 3, 4\).*static \[n\] = \(4,\), got shape \(2, 3, 5\)"),
    "h_pre tokens": (lambda: ops.read(X, t(3, 2, 4)), ValueError, r"got shape \(3, 2, 4\)"),
    "h_pre broadcast": (lambda: ops.read(X, t(1, 3, 4)), ValueError, r"got shape \(1, 3, 4\)"),
    "h_pre 0-d": (lambda: ops.read(X, t()), ValueError, r"read: h_pre: .* got shape \(\)"),
    "h_pre bfloat16": (
        lambda: ops.read(X, H1.bfloat16()), TypeError,
        r"read: h_pre: expected float32 beside float32 streams, got bfloat16.*call h_pre.float\(\)"),
    "h_pre bfloat16 beside bfloat16": (
        lambda: ops.read(X.bfloat16(), H1.bfloat16()), TypeError, r"call h_pre.float\(\)"),
    "h_pre float16": (lambda: ops.read(X.half(), H1.half()), TypeError, r"call h_pre.float\(\)"),
    "h_pre float64": (
        lambda: ops.read(X, H1.double()), TypeError, r"expected float32 .* got float64"),
    "h_pre float32 beside float64": (
        lambda: ops.read(X.double(), H1), TypeError, r"float64 beside float64.*h_pre.double\(\)"),
    "h_pre integer": (lambda: ops.read(X, H1.long()), TypeError, r"read: h_pre: .* got int64"),
    "devices": (
        lambda: ops.read(X, t(4, device="meta")), ValueError,
        r"read: h_pre: expected a tensor on the streams' device cpu, got meta"),
    "y width": (
        lambda: ops.mix_write(X, t(2, 3, 7), H2, H1), ValueError,
        r"mix_write: y: expected \[..., C\] = \(2, 3, 8\) .* got shape \(2, 3, 7\)"),
    "y rank": (lambda: ops.mix_write(X, X, H2, H1), ValueError, r"mix_write: y: .*\(2, 3, 4, 8\)$"),
    "y integer": (lambda: ops.mix_write(X, Y.long(), H2, H1), TypeError, r"y: .* got int64"),
    "y None": (lambda: ops.mix_write(X, None, H2, H1), TypeError, r"y: .* got NoneType"),
    "y device": (
        lambda: ops.mix_write(X, t(2, 3, 8, device="meta"), H2, H1), ValueError, r"y: .* got meta"),
    "h_res shape": (
        lambda: ops.mix_write(X, Y, t(2, 3, 4, 5), H1), ValueError,
        r"mix_write: h_res: expected \[..., n, n\] = \(2, 3, 4, 4\).*\[n, n\] = \(4, 4\), got shape"),
    "h_res vector": (lambda: ops.mix_write(X, Y, t(4), H1), ValueError, r"h_res: .* \(4,\)"),
    "h_res half": (lambda: ops.mix_write(X, Y, H2.half(), H1), TypeError, r"h_res.float\(\)"),
    "h_post None": (lambda: ops.mix_write(X, Y, H2, None), TypeError, r"h_post: .* NoneType"),
    "h_post shape": (lambda: ops.mix_write(X, Y, H2, t(3, 4)), ValueError, r"h_post: .* \(3, 4\)"),
    "write bias": (
        lambda: ops.mix_write(X, Y, H2, H1, bias=t(7)), ValueError,
        r"mix_write: bias: expected \[C\] = \(8,\), got shape \(7,\)"),
    "write bias half": (
        lambda: ops.mix_write(X, Y, H2, H1, bias=t(8, dtype=BF16)), TypeError, r"bias.float\(\)"),
    "phi features": (
        lambda: ops.project(X, t(24, 31)), ValueError,
        r"project: phi: expected \[K, n\*C\] = \[K, 32\].* got shape \(24, 31\)"),
    "phi rank": (lambda: ops.project(X, t(32)), ValueError, r"project: phi: .* \(32,\)"),
    "phi empty": (lambda: ops.project(X, t(0, 32)), ValueError, r"K >= 1.* \(0, 32\)"),
    "phi bfloat16": (
        lambda: ops.project(X.bfloat16(), PHI.bfloat16()), TypeError, r"call phi.float\(\)"),
    "norm_weight": (
        lambda: ops.project(X, PHI, t(8)), ValueError, r"norm_weight: expected \[n\*C\] = \(32,\)"),
    "eps negative": (
        lambda: ops.project(X, PHI, eps=-1e-6), ValueError, r"eps: expected .* >= 0, got -1e-06"),
    "eps nan": (lambda: ops.project(X, PHI, eps=float("nan")), ValueError, r"eps: .* got nan"),
    "eps_position": (
        lambda: ops.project(X, PHI, eps_position="within"), ValueError, r"'floor', got 'within'"),
    "logits count": (
        lambda: coefficients(t(2, 3, 23)), ValueError,
        r"coefficients: logits: expected \[..., K\] ending in \(24,\) for 4 .* got shape \(2, 3, 23\)"),
    "logits half": (
        lambda: coefficients(LOGITS.half()), TypeError, r"logits: .* got float16: call logits.float"),
    "logits list": (lambda: coefficients([1.0]), TypeError, r"logits: .* got list"),
    "inv_rms shape": (
        lambda: coefficients(LOGITS, t(2, 4)), ValueError, r"inv_rms: expected \[...\] = \(2, 3\)"),
    "inv_rms half": (lambda: coefficients(LOGITS, t(2, 3, dtype=BF16)), TypeError, r"inv_rms.float"),
    "alpha groups": (
        lambda: coefficients(LOGITS, None, t(2)), ValueError,
        r"coefficients: alpha: expected \[2 \+ groups\] = \(3,\), got shape \(2,\)"),
    "alpha 0-d": (lambda: coefficients(LOGITS, None, t()), ValueError, r"alpha: .* got shape \(\)"),
    "coefficient bias": (
        lambda: coefficients(LOGITS, None, ALPHA, t(8)), ValueError, r"bias: expected \[K\] = \(24,\)"),
    "bias bfloat16": (
        lambda: coefficients(LOGITS, None, ALPHA, BIAS.bfloat16()), TypeError, r"bias.float\(\)"),
    "n_streams 0": (lambda: coefficients(n_streams=0), ValueError, r"n_streams: expected 1 to 16, got 0"),
    "n_streams float": (
        lambda: coefficients(n_streams=4.0), TypeError, r"n_streams: expected an int, got float"),
    "mixer name": (
        lambda: coefficients(mixer="sinkhorm"), ValueError, r"'sinkhorm' \(did you mean 'sinkhorn'"),
    "mixer range": (
        lambda: coefficients(mixer="permutation", n_streams=6), ValueError, r"1..5, got 6"),
    "per_stream mixer": (
        lambda: coefficients(t(2, 3, 4, 6), mixer="permutation", per_stream=True), ValueError,
        r"per_stream: expected a mixer with n\*n = 16 logits, got mixer 'permutation' with 24"),
    "per_stream logits": (
        lambda: coefficients(LOGITS, per_stream=True), ValueError, r"n, 2 \+ n\] ending in \(4, 6\)"),
    "activation": (lambda: ops.Activation("relu"), ValueError, r"kind must be .* got 'relu'"),
    "boundary without h_post": (
        lambda: ops.boundary(X, Y, H2, None, PHI, None, ALPHA, BIAS, n_streams=4, mixer="free"),
        ValueError, r"boundary: h_post: expected .* beside y, got None"),
    "boundary h_post without y": (
        lambda: boundary(y=None, h_res=None), ValueError,
        r"boundary: h_post: expected None without y, got Tensor"),
    "boundary write_bias without y": (
        lambda: boundary(y=None, h_res=None, h_post=None, write_bias=t(8)), ValueError,
        r"boundary: write_bias: expected None without y, got Tensor"),
    "boundary static bias": (
        lambda: boundary(phi=None, bias=t(7)), ValueError,
        r"boundary: bias: expected \[K\] = \(24,\), got shape \(7,\)"),
    "boundary n_streams": (
        lambda: boundary(n_streams="4"), ValueError,
        r"boundary: n_streams: expected 4, the streams of x, got '4'"),
    "boundary read_activation": (
        lambda: boundary(read_activation="sigmoid"), TypeError,
        r"read_activation: expected an ops.Activation, got 'sigmoid'"),
    "boundary y": (lambda: boundary(y=t(2, 3, 9)), ValueError, r"boundary: y: .* got shape \(2, 3, 9\)"),
    "boundary h_post half": (
        lambda: boundary(h_post=H1.half()), TypeError, r"boundary: h_post: .*call h_post.float\(\)"),
    "boundary write_bias": (
        lambda: boundary(write_bias=t(3)), ValueError, r"boundary: write_bias: expected \[C\] = \(8,\)"),
    "boundary read_weights": (
        lambda: boundary(read_weights=t(5)), ValueError, r"boundary: read_weights: .*\(5,\)"),
    "boundary phi": (lambda: boundary(phi=t(24, 31)), ValueError, r"phi: .* got shape \(24, 31\)"),
    "boundary phi rows": (lambda: boundary(phi=t(23, 32)), ValueError, r"24.* got shape .*23"),
    "boundary norm_weight": (
        lambda: boundary(norm_weight=t(8)), ValueError, r"norm_weight: .* got shape \(8,\)"),
    "boundary alpha": (lambda: boundary(alpha=t(4)), ValueError, r"alpha: .*\(3,\), got shape \(4,\)"),
    "boundary bias": (lambda: boundary(bias=t(8)), ValueError, r"bias: .*\(24,\), got shape \(8,\)"),
    "boundary eps": (lambda: boundary(eps=-1.0), ValueError, r"eps: expected a finite number >= 0"),
    "boundary eps_position": (
        lambda: boundary(eps_position="below"), ValueError, r"eps_position: .* got 'below'"),
    "boundary mixer range": (
        lambda: ops.boundary(t(2, 6, 8), None, None, None, t(732, 48), None, ALPHA, t(732),
                             n_streams=6, mixer="permutation"), ValueError, r"1..5, got 6"),
    "boundary per_stream mixer": (
        lambda: boundary(mixer="permutation", per_stream=True, phi=t(6, 8)), ValueError,
        r"a mixer with n\*n = 16 logits, got mixer 'permutation' with 24"),
    "h integer": (lambda: ops.expand(Y.long(), 4), TypeError, r"expand: h: .* got int64"),
    "h 0-d": (lambda: ops.expand(t(), 4), ValueError, r"expand: h: .* got a 0-d tensor"),
    "h width 0": (lambda: ops.expand(t(3, 0), 4), ValueError, r"expand: h: .* C >= 1"),
    "expand 17": (lambda: ops.expand(Y, 17), ValueError, r"expand: n_streams: .* 1 to 16, got 17"),
    "expand True": (lambda: ops.expand(Y, True), TypeError, r"an int, got bool"),
    "scale shape": (
        lambda: ops.expand(Y, 4, scale=t(8, 4)), ValueError,
        r"expand: scale: expected \[n, C\] = \(4, 8\), got shape \(8, 4\)"),
    "scale half": (
        lambda: ops.expand(Y.half(), 4, scale=t(4, 8).half()), TypeError, r"scale.float\(\)"),
    "expand bias": (lambda: ops.expand(Y, 4, bias=t(4)), ValueError, r"bias: .* \(4,\)"),
    "weights": (
        lambda: ops.reduce(X, t(3)), ValueError, r"reduce: weights: expected .* got shape \(3,\)"),
    "reduce rank": (lambda: ops.reduce(t(8)), ValueError, r"reduce: x: expected streams"),
    "weights half": (lambda: ops.reduce(X, t(4, dtype=BF16)), TypeError, r"weights.float\(\)"),
    "stats y": (lambda: ops.stream_stats(X, t(3, 8)), ValueError, r"stream_stats: y: .*\(3, 8\)"),
    "stats h_pre": (
        lambda: ops.stream_stats(X, h_pre=t(5)), ValueError, r"stream_stats: h_pre: .*\(5,\)"),
    "stats h_post": (
        lambda: ops.stream_stats(X, h_post=t(5)), ValueError, r"stream_stats: h_post: .*\(5,\)"),
    "stats h_res": (
        lambda: ops.stream_stats(X, h_res=t(4)), ValueError, r"stream_stats: h_res: .*\(4,\)"),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("name", BAD)
def test_bad_argument(name: str, backend: ops.Backend) -> None:
    call, error, words = BAD[name]
    with ops.backend(backend), pytest.raises(error, match=words):
        call()


def test_raw_ops_refuse_instead_of_crashing() -> None:
    """The kernels' own last line of defence, for callers of torch.ops."""
    raw = torch.ops.hyperstreams
    for call in (
        lambda: raw._read(t(8), t(1)),
        lambda: raw._read(t(2, 17, 8), t(2, 17)),
        lambda: raw._read(X, t(2, 3, 5)),
        lambda: raw._read(X, t(4, 6)),
        lambda: raw._read(X, t()),
        lambda: raw._read(X, H1.double()),
        lambda: raw._read(X.long(), H1),
        lambda: raw._read_backward(t(2, 3, 7), X, H1),
        lambda: raw._read_backward(Y.half(), X, H1),
        lambda: raw._mix_write(X, Y, t(4, 5), H1, None),
        lambda: raw._mix_write(X, t(2, 3, 9), H2, H1, None),
        lambda: raw._mix_write(X, Y, t(3, 8, 4).mT, H1, None),
        lambda: raw._mix_write_backward(X[:, :1], X, Y, H2, H1, None),
        lambda: raw._project(X, t(24, 31), None, 1e-6, 0),
        lambda: raw._project(X, PHI, t(3), 1e-6, 0),
        lambda: raw._project(X, PHI, None, 1e-6, 7),
        lambda: raw._expand(Y, 0, None, None),
        lambda: raw._expand(Y, 4, t(3, 8), None),
        lambda: raw._expand_backward(t(2, 3, 3, 8), Y, 4, None, False),
        lambda: raw._coefficients(LOGITS, None, ALPHA, BIAS, 4, 99, [], []),
        lambda: raw._coefficients(LOGITS, None, ALPHA, t(3), 4, 1, [0] * 7 + [1, 16], [1.0, 0.0] * 3),
        lambda: raw._coefficients_backward(H1, H1, None, LOGITS, None, ALPHA, BIAS, None, None, 4, *SINKHORN[2:]),
        lambda: raw._stream_stats(X, t(3), None, None, None),
        lambda: raw._boundary(X, Y, H2, None, None, PHI, None, ALPHA, BIAS, None, *SINKHORN),
        lambda: raw._boundary(X, Y, H2, H1, None, PHI, None, ALPHA, None, None, *SINKHORN),
        lambda: raw._boundary(X, Y, H2, H1, None, t(23, 32), None, ALPHA, BIAS, None, *SINKHORN),
        lambda: raw._boundary(X, Y, H2, H1, None, None, None, None, None, None, *SINKHORN),
        lambda: raw._boundary(X, Y, H2, H1, None, PHI, None, ALPHA, BIAS, t(3), *SINKHORN),
        lambda: raw._mix_write(X, t(8), H2, H1, None),
        lambda: raw._mix_write_backward(X, X, t(8), H2, H1, None),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            call()
