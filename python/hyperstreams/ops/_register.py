"""The one factory that turns raw forward and backward kernels into differentiable ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from ._backend import without_autocast
from ._batching import Fold, folding, one_by_one

Outputs = Any  # a Tensor or a tuple of Tensors
Gradient = Callable[..., Sequence[Tensor | None]]


def _under_torch_func() -> bool:
    return torch._C._are_functorch_transforms_active()


# torch.compile asks while it traces, instead of putting the question into the graph.
_under_torch_func._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _reference_gradient(
    reference: Callable[..., Outputs],
    inputs: Sequence[Any],
    grads: Sequence[Tensor],
    needs: Sequence[bool],
) -> Sequence[Tensor | None]:
    """The gradient as a differentiable function of ``inputs`` and ``grads``."""
    wanted = [k for k, need in enumerate(needs) if need]

    def function(*values: Tensor) -> Outputs:
        given = dict(zip(wanted, values, strict=True))
        return without_autocast(reference, *[given.get(k, v) for k, v in enumerate(inputs)])

    pull_back: Any = torch.func.vjp(function, *[inputs[k] for k in wanted])[1]

    def gradients(*grads: Tensor) -> Sequence[Tensor]:
        return pull_back(grads[0] if len(grads) == 1 else grads)

    found = dict(zip(wanted, without_autocast(gradients, *grads), strict=True))
    return [found.get(k) for k in range(len(inputs))]


def register(name: str, *, fake: Callable[..., Outputs], fold: Fold | None = None) -> Any:
    """The raw op ``hyperstreams::name`` with its fake and its batching rule.

    Returns the op's overload, or None when no library that defines it is loaded: the back end is
    then the reference, and what is made from the op is never called.

    Parameters
    ----------
    fake : shapes and dtypes of the outputs: always ``new_empty``, so contiguous like the real ones.
    fold : roles of the arguments when a batch axis can join the token axes; None (backward ops,
        whose parameter gradients are sums over tokens) runs the batch one by one.
    """
    packet = getattr(torch.ops.hyperstreams, name, None)
    if packet is None:
        return None
    op = packet.default
    torch.library.register_fake(f"hyperstreams::{name}", fake)
    rule = one_by_one(op) if fold is None else folding(op, fold)
    torch.library.register_vmap(f"hyperstreams::{name}", rule)
    return op


def differentiable(
    name: str,
    *,
    tensors: int,
    forward: Callable[..., Outputs],
    gradient: Gradient,
    reference: Callable[..., Outputs],
    saved_outputs: tuple[int, ...] = (),
    auxiliary: int = 0,
    forget: Callable[..., tuple[Tensor | None, ...]] | None = None,
) -> Callable[..., Outputs]:
    """A differentiable function ``call(*inputs)`` from raw kernels.

    Parameters
    ----------
    tensors : the first ``tensors`` inputs are tensors or None, the others are numbers.
    forward : ``forward(*inputs)``: the raw op, without autograd.
    gradient : ``gradient(grads, *inputs, *outputs)``: the gradients of the tensor inputs, from the
        raw backward op. ``outputs`` are the forward's outputs that ``saved_outputs`` counts.
    reference : the same function in differentiable PyTorch. It is the gradient under
        ``create_graph=True`` and under ``torch.func``, and the whole op under forward-mode
        differentiation: derivatives of any order are right.
    auxiliary : so many of the forward's last outputs are for ``saved_outputs`` alone: ``reference``
        does not return them, ``call`` neither, and they have no gradient.
    forget : ``forget(*inputs)``: the tensor inputs, where those whose values neither ``gradient``
        nor the reference's gradient needs are replaced by :func:`stand_in` and so not kept.

    Without a gradient to record the result is the raw op itself; with one it is a ctx-style
    ``torch.autograd.Function``; under ``torch.func`` one with ``setup_context``, which that needs.
    """

    def backward(ctx: Any, *grads: Tensor) -> Any:
        if auxiliary:
            grads = grads[:-auxiliary]
        saved = ctx.saved_tensors
        constants = ctx.constants
        inputs = (*saved[:tensors], *constants)
        if torch.is_grad_enabled():
            grad_inputs = _reference_gradient(reference, inputs, grads, ctx.needs_input_grad)
        else:
            grad_inputs = gradient(grads, *inputs, *saved[tensors:])
        return (*grad_inputs[:tensors], *[None] * len(constants))

    def forward_and_save(ctx: Any, *inputs: Any) -> Outputs:
        outputs = forward(*inputs)
        kept = inputs[:tensors] if forget is None else forget(*inputs)
        ctx.save_for_backward(*kept, *[outputs[k] for k in saved_outputs])
        ctx.constants = inputs[tensors:]
        if auxiliary:
            ctx.mark_non_differentiable(*outputs[-auxiliary:])
        return outputs

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        ctx.save_for_backward(*inputs[:tensors], *[output[k] for k in saved_outputs])
        ctx.constants = inputs[tensors:]
        if auxiliary:
            ctx.mark_non_differentiable(*output[-auxiliary:])

    eager: Any = type(
        name,
        (torch.autograd.Function,),
        {"forward": staticmethod(forward_and_save), "backward": staticmethod(backward)},
    )
    functional: Any = type(
        f"{name}Functional",
        (torch.autograd.Function,),
        {
            "generate_vmap_rule": True,
            "forward": staticmethod(lambda *inputs: forward(*inputs)),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
        },
    )

    def run(*inputs: Any) -> Outputs:
        if torch.is_grad_enabled():
            if _under_torch_func():
                return functional.apply(*inputs)
            for value in inputs[:tensors]:
                if value is not None and value.requires_grad:
                    return eager.apply(*inputs)
        return forward(*inputs)

    def call(*inputs: Any) -> Outputs:
        # Raw kernels would drop tangents without a word, and torch.compile cannot trace a Function
        # inside torch.func.
        if forward_ad._current_level >= 0 or (
            torch.compiler.is_compiling() and torch.is_grad_enabled() and _under_torch_func()
        ):
            return without_autocast(reference, *inputs)
        outputs = run(*inputs)
        return outputs[:-auxiliary] if auxiliary else outputs

    return call


def graph_constant(value: float) -> float:
    """``value``, which a compiled graph is specialised to instead of taking it as an input.

    torch.compile turns a float that changed between calls into an input, and fails on one inside a
    Function; it knows hex() of constants only.
    """
    return float.fromhex(value.hex()) if torch.compiler.is_compiling() else value


def stand_in(x: Tensor) -> Tensor:
    """Zeros of x's shape, dtype and device that occupy one row of memory."""
    return x.new_zeros(x.shape[-1:]).expand(x.shape)
