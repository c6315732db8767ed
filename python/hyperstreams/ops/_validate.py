"""Argument checks of the public ops, worded "op: argument: expected ..., got ..."."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from ..mixers import Mixer
from .settings import Activation

MAX_STREAMS = 16
COEFFICIENT_DTYPE = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float64: torch.float64,
}
"""Streams' dtype to the dtype of coefficients and parameters beside them."""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def fail(error: type[Exception], op: str, argument: str, expected: str, got: object) -> NoReturn:
    """Raise ``error`` in the one wording of all ops."""
    raise error(f"{op}: {argument}: expected {expected}, got {got}")


def check_streams(op: str, x: Tensor) -> torch.Size:
    """X ``[..., n, C]`` in a supported dtype; returns its shape."""
    if not isinstance(x, Tensor):
        fail(TypeError, op, "x", "a torch.Tensor", type(x).__name__)
    shape = x.shape
    if len(shape) < 2:
        fail(ValueError, op, "x", "streams [..., n, C] of rank 2 or more", f"shape {tuple(shape)}")
    if x.dtype not in COEFFICIENT_DTYPE:
        fail(TypeError, op, "x", "float32, bfloat16, float16 or float64", _short(x.dtype))
    n = shape[-2]
    if not 1 <= n <= MAX_STREAMS:
        fail(
            ValueError, op, "x", f"1 to {MAX_STREAMS} streams n in [..., n, C]",
            f"n = {n} in shape {tuple(shape)}",
        )  # fmt: skip
    if shape[-1] < 1:
        fail(ValueError, op, "x", "a width C >= 1 in [..., n, C]", f"shape {tuple(shape)}")
    return shape


def check_hidden(op: str, argument: str, h: Tensor) -> torch.Size:
    """A tensor ``[..., C]`` in a supported dtype; returns its shape."""
    if not isinstance(h, Tensor):
        fail(TypeError, op, argument, "a torch.Tensor", type(h).__name__)
    shape = h.shape
    if len(shape) < 1:
        fail(ValueError, op, argument, "a tensor [..., C] of rank 1 or more", "a 0-d tensor")
    if h.dtype not in COEFFICIENT_DTYPE:
        fail(TypeError, op, argument, "float32, bfloat16, float16 or float64", _short(h.dtype))
    if shape[-1] < 1:
        fail(ValueError, op, argument, "a width C >= 1 in [..., C]", f"shape {tuple(shape)}")
    return shape


def check_n_streams(op: str, n: int) -> None:
    if not isinstance(n, int) or isinstance(n, bool):
        fail(TypeError, op, "n_streams", "an int", type(n).__name__)
    if not 1 <= n <= MAX_STREAMS:
        fail(ValueError, op, "n_streams", f"1 to {MAX_STREAMS}", n)


def check_precision(op: str, argument: str, h: object, x: Tensor) -> None:
    """``h`` is a tensor on x's device in the dtype of coefficients beside x."""
    if not isinstance(h, Tensor):
        fail(TypeError, op, argument, "a torch.Tensor", type(h).__name__)
    expected = COEFFICIENT_DTYPE[x.dtype]
    if h.dtype is not expected:
        half = h.dtype in (torch.bfloat16, torch.float16)
        cure = ".float()" if expected is torch.float32 else ".double()"
        why = "; half precision loses the residual path" if half else ""
        fail(
            TypeError, op, argument, f"{_short(expected)} beside {_short(x.dtype)} streams",
            f"{_short(h.dtype)}{why}: call {argument}{cure}",
        )  # fmt: skip
    if h.device != x.device:
        fail(ValueError, op, argument, f"a tensor on the streams' device {x.device}", h.device)


def check_coefficient(
    op: str, argument: str, h: Tensor, symbols: str, shape: torch.Size, inner: int, x: Tensor
) -> None:
    """``h`` has ``shape`` (per token) or its last ``inner`` axes alone (static)."""
    check_precision(op, argument, h, x)
    if h.shape != shape and h.shape != shape[-inner:]:
        fail(
            ValueError, op, argument,
            f"[..., {symbols}] = {tuple(shape)} with the streams' token axes, or static "
            f"[{symbols}] = {tuple(shape[-inner:])}",
            f"shape {tuple(h.shape)}",
        )  # fmt: skip


def check_parameter(
    op: str, argument: str, p: Tensor, symbols: str, shape: tuple[int, ...], x: Tensor
) -> None:
    """``p`` has exactly ``shape`` and the precision of coefficients."""
    check_precision(op, argument, p, x)
    if p.shape != shape:
        fail(ValueError, op, argument, f"[{symbols}] = {tuple(shape)}", f"shape {tuple(p.shape)}")


def check_branch(op: str, argument: str, y: Tensor, shape: torch.Size, x: Tensor) -> None:
    """A branch output ``[..., C]`` beside streams ``[..., n, C]`` of ``shape``."""
    if not isinstance(y, Tensor):
        fail(TypeError, op, argument, "a torch.Tensor", type(y).__name__)
    if y.dtype not in COEFFICIENT_DTYPE:
        fail(TypeError, op, argument, "float32, bfloat16, float16 or float64", _short(y.dtype))
    if y.shape != shape[:-2] + shape[-1:]:
        fail(
            ValueError, op, argument,
            f"[..., C] = {tuple(shape[:-2] + shape[-1:])} for streams [..., n, C] = {tuple(shape)}",
            f"shape {tuple(y.shape)}",
        )  # fmt: skip
    if y.device != x.device:
        fail(ValueError, op, argument, f"a tensor on the streams' device {x.device}", y.device)


def check_project(
    op: str, x: Tensor, phi: Tensor, norm_weight: Tensor | None, features: int, eps: float
) -> None:
    """The controller's parameters beside streams of ``features = n C`` channels."""
    check_precision(op, "phi", phi, x)
    if phi.dim() != 2 or phi.shape[0] < 1 or phi.shape[1] != features:
        fail(
            ValueError, op, "phi",
            f"[K, n*C] = [K, {features}], K >= 1, for streams [..., n, C] = {tuple(x.shape)}",
            f"shape {tuple(phi.shape)}",
        )  # fmt: skip
    if norm_weight is not None:
        check_parameter(op, "norm_weight", norm_weight, "n*C", (features,), x)
    if not 0.0 <= eps < float("inf"):
        fail(ValueError, op, "eps", "a finite number >= 0", eps)


def check_pending_write(
    op: str,
    x: Tensor,
    y: Tensor,
    h_res: Tensor | None,
    h_post: Tensor,
    bias: Tensor | None,
    bias_name: str = "bias",
) -> None:
    """The arguments of a mix and write beside streams that are checked."""
    shape = x.shape
    check_branch(op, "y", y, shape, x)
    if h_res is not None:
        check_coefficient(op, "h_res", h_res, "n, n", shape[:-1] + shape[-2:-1], 2, x)
    check_coefficient(op, "h_post", h_post, "n", shape[:-1], 1, x)
    if bias is not None:
        check_parameter(op, bias_name, bias, "C", shape[-1:], x)


class CoefficientShapes(NamedTuple):
    """What the settings of ``coefficients`` say about its tensors."""

    tail: tuple[int, ...]
    """The last axes of logits."""
    bias: int
    alpha: int
    per_stream: bool
    description: str
    """The settings in the words of an error."""


def check_coefficient_settings(
    op: str,
    n: int,
    mixer: Mixer,
    activations: tuple[Activation, Activation, Activation],
    per_stream: bool,
) -> CoefficientShapes:
    """Settings that fit together; returns the shapes that they ask for."""
    check_n_streams(op, n)
    mixer.check(n)
    for stage, activation in zip(("read", "write", "mix"), activations, strict=True):
        if not isinstance(activation, Activation):
            fail(TypeError, op, f"{stage}_activation", "an ops.Activation", repr(activation))
    if activations[2].is_softmax:
        fail(
            ValueError, op, "mix_activation",
            "an elementwise one (mixer 'row_softmax' is a softmax)", repr(activations[2].kind),
        )  # fmt: skip
    ends = sum(activation.logit_count(n) for activation in activations[:2])
    count = ends + mixer.logit_count(n)
    dynamic = count - mixer.static_logit_count(n)
    if per_stream and ends != 2 * n:
        fail(
            ValueError, op, "per_stream", "read and write activations with n logits",
            f"{activations[0].kind!r} and {activations[1].kind!r}",
        )  # fmt: skip
    if per_stream and dynamic != n * (2 + n):
        fail(
            ValueError, op, "per_stream", f"a mixer with n*n = {n * n} logits",
            f"mixer {mixer.name!r} with {dynamic - 2 * n}",
        )  # fmt: skip
    return CoefficientShapes(
        tail=(n, 2 + n) if per_stream else (dynamic,),
        bias=count,
        alpha=2 + len(mixer.group_sizes(n)),
        per_stream=bool(per_stream),
        description=f"{n} streams and mixer {mixer.name!r}",
    )


def check_coefficients(
    op: str,
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    shapes: CoefficientShapes,
) -> None:
    """Logits and the parameters that turn them into coefficients."""
    if not isinstance(logits, Tensor):
        fail(TypeError, op, "logits", "a torch.Tensor", type(logits).__name__)
    if logits.dtype not in (torch.float32, torch.float64):
        fail(
            TypeError, op, "logits", "float32 or float64",
            f"{_short(logits.dtype)}: call logits.float()",
        )  # fmt: skip
    shape = logits.shape
    if shape[-len(shapes.tail) :] != shapes.tail:
        symbols = "n, 2 + n" if shapes.per_stream else "K"
        fail(
            ValueError, op, "logits",
            f"[..., {symbols}] ending in {shapes.tail} for {shapes.description}",
            f"shape {tuple(shape)}",
        )  # fmt: skip
    if inv_rms is not None:
        symbols = "..., n" if shapes.per_stream else "..."
        check_parameter(op, "inv_rms", inv_rms, symbols, shape[:-1], logits)
    check_parameter(op, "alpha", alpha, "2 + groups", (shapes.alpha,), logits)
    check_parameter(op, "bias", bias, "K", (shapes.bias,), logits)
