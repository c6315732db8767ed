"""Everything that a forward pass computes at every site, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ... import ops
from ...nn import HyperConnection
from .hooks import hooks, tap_modules


@dataclass(frozen=True)
class Trace:
    """Per-token tensors of one forward pass, detached. K sites, n streams, width C.

    site_names : ``("L0a", "L0m", ...)`` of a GPT; of other models the paths of the sites.
    streams : ``[K + 1, B, T, n, C]`` the state before each site, then before the readout.
    h_pre, h_post : ``[K, B, T, n]``; h_res : ``[K, B, T, n, n]``, ``[destination, source]``. Static
        coefficients repeated, the identity where a site has no mixer.
    branch_in, branch_out : ``[K, B, T, C]`` u and y.
    logits : what the model returned, ``[B, T, V]`` of a GPT. loss : its loss, or None.

    Memory: about ``K (n + 3) C`` numbers a token; trace a few windows at a time.
    """

    site_names: tuple[str, ...]
    streams: Tensor
    h_pre: Tensor
    h_post: Tensor
    h_res: Tensor
    branch_in: Tensor
    branch_out: Tensor
    logits: Tensor
    loss: Tensor | None

    @property
    def n_streams(self) -> int:
        return self.streams.shape[-2]


@torch.no_grad()
def trace(model: nn.Module, tokens: Tensor, targets: Tensor | None = None) -> Trace:
    """Run ``model`` once in evaluation mode and keep what passes its hook points.

    model : any module with ``nn.HyperConnection`` sites that is called with ``tokens`` (and
        ``targets``) and returns logits, or a tuple that begins with them and the loss. It is put
        back into its mode.

    Exact: ``h_res @ streams[k] + h_post (x) branch_out[k] = streams[k + 1]`` to rounding, with the
    coefficients that the model used. Raises ValueError for a model without such sites, and when a
    site ran more than once.
    """
    sites = {k: m for k, m in tap_modules(model).items() if isinstance(m, HyperConnection)}
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, name: str) -> None:
        if name in seen:
            raise ValueError(f"trace: model: expected every site to run once, {name} ran again")
        seen[name] = value.detach()

    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with hooks(model, {"*": keep}):
            inputs = [tokens.to(device)] + ([] if targets is None else [targets.to(device)])
            output = model(*inputs)
    finally:
        model.train(training)
    names = [name for name in sites if f"{name}.hook_streams_in" in seen]
    order = list(dict.fromkeys(name.rpartition(".")[0] for name in seen))
    names.sort(key=order.index)
    lead = seen[f"{names[0]}.hook_in"].shape[:-1]

    def stacked(point: str, inner: int) -> Tensor:
        rows = [seen[f"{name}.{point}"] for name in names]
        return torch.stack([row.expand(*lead, *row.shape[row.ndim - inner :]) for row in rows])

    streams = [seen[f"{name}.hook_streams_in"] for name in names]
    last = seen.get("reduce.hook_streams_in")
    if last is None:
        end = names[-1]
        y, h_res, h_post = (seen[f"{end}.{p}"] for p in ("hook_out", "hook_res", "hook_post"))
        last = ops.mix_write(streams[-1], y, h_res, h_post)
    logits, loss = (output, None) if isinstance(output, Tensor) else (output[0], output[1])
    own = getattr(model, "site_names", None)
    return Trace(
        site_names=tuple(own) if own is not None and len(own) == len(names) else tuple(names),
        streams=torch.stack([*streams, last]),
        h_pre=stacked("hook_pre", 1),
        h_post=stacked("hook_post", 1),
        h_res=stacked("hook_res", 2),
        branch_in=stacked("hook_in", 1),
        branch_out=stacked("hook_out", 1),
        logits=logits.detach(),
        loss=None if loss is None else loss.detach(),
    )
