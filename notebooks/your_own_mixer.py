# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A mixer of your own in 20 lines
#
# A **mixer** maps a few logits per token to the matrix `h_res` that mixes the streams:
# `h_res[j, i]` is the weight from source stream `i` to destination stream `j`. It is all that
# distinguishes most published variants. This notebook adds one, lets the package test it, trains
# it beside mHC-lite and looks at its matrices. It needs `pip install hyperstreams[plot]`.

# %%
import dataclasses
import os
import sysconfig
from itertools import combinations
from pathlib import Path

import hyperstreams as hs
import matplotlib.pyplot as plt
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from hyperstreams.mixers import INVARIANTS, Mixer
from hyperstreams.mixers.testing import check_mixer

STEPS = int(os.environ.get("HYPERSTREAMS_NOTEBOOK_STEPS", "80"))
torch.set_num_threads(1)  # a model this small gains nothing from a second

# %% [markdown]
# ## The mixer
#
# Ours turns the streams in their space: one rotation for each pair, by an angle that the token
# chooses. Every such matrix is orthogonal, so nothing shrinks over depth, which doubly stochastic
# mixing cannot say. Angles of 0 are the identity: a good start.


# %%
@dataclasses.dataclass(frozen=True)
class Rotations(Mixer):
    """A product of plane rotations, one for each pair of streams."""

    name = "rotations"
    paper = "this notebook"
    invariants = frozenset({"orthogonal", "spectral_norm_one"})

    def logit_count(self, n):
        return n * (n - 1) // 2

    def initial_logits(self, n):
        return torch.zeros(self.logit_count(n))

    def map(self, logits, n):
        eye = torch.eye(n, dtype=logits.dtype, device=logits.device)
        rows = list(eye.expand(*logits.shape[:-1], n, n).unbind(-2))
        for angle, (i, j) in zip(logits.unbind(-1), combinations(range(n), 2), strict=True):
            c, s = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
            rows[i], rows[j] = c * rows[i] - s * rows[j], s * rows[i] + c * rows[j]
        return torch.stack(rows, dim=-2)


# %% [markdown]
# The invariants are words with a meaning; everything else about the class is tested as well:

# %%
for word, meaning in INVARIANTS.items():
    print(f"{word:26} {meaning}")

# %%
checks = check_mixer(Rotations(), n_values=(1, 2, 3, 4))
print(f"{len(checks)} checks pass, for instance: {checks[4]}; {checks[6]}")

# %% [markdown]
# What a mistake looks like: a small term too much, and the matrix is no rotation any more.


# %%
class NearlyRotations(Rotations):
    def map(self, logits, n):
        return super().map(logits, n) + 0.01 * logits.sum(-1)[..., None, None]


try:
    check_mixer(NearlyRotations(), n_values=(2, 3))
except AssertionError as error:
    print(error)

# %% [markdown]
# (On the command line: `hyperstreams test-mixer my_module:Rotations --n 2,3,4`.)
#
# ## A connection around it
#
# Reading, writing, controller, initial values: as in mHC-lite. Under a name, the model, `hyperstreams
# train` and `compare` know it like any other.

# %%
hnn.register_connection(
    dataclasses.replace(hnn.get_connection("mhc_lite"), name="rotations", mixer=Rotations()),
    replace=True,  # so that this cell can run again after you have changed the class
)

# %% [markdown]
# ## Train both on the same text
#
# Same seed, so the same branches, batches and designated streams; only the mixers differ.

# %%
sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
data = torch.frombuffer(bytearray(b"\n".join(p.read_bytes() for p in sources)), dtype=torch.uint8)
data = data.long()


def train(connection):
    config = hs.GPTConfig(
        n_layer=2,
        n_head=2,
        width=32,
        block_size=48,
        connection=connection,
        n_streams=4,
        expand="learned_scale",
    )
    model = hs.GPT(config, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=5e-3)
    generator = torch.Generator().manual_seed(2)
    losses = []
    for _ in range(STEPS):
        starts = torch.randint(len(data) - 49, (12, 1), generator=generator)
        window = data[starts + torch.arange(49)]
        _, loss = model(window[:, :-1], window[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    stats = model(window[:, :-1], window[:, 1:], collect_stats=True)[2]
    return model, losses, ops.unpack_stream_stats(stats, 4)


runs = {name: train(name) for name in ("mhc_lite", "rotations")}
for name, (model, losses, _) in runs.items():
    extra = sum(
        p.numel()
        for module in model.modules()
        if isinstance(module, hnn.Connection)
        for p in module.parameters()
    )
    last = sum(losses[-10:]) / len(losses[-10:])
    print(f"{name:10} loss {losses[0]:.3f} -> {last:.3f}, {extra:,} connection parameters")
    assert losses[-1] < losses[0]

# %% [markdown]
# A run this short says that both train, not which is better: `hyperstreams compare --seeds 3` is
# the tool for that question.
#
# ## Look at the matrices
#
# The mean of `h_res` over tokens at every site, minus the identity. The smallest singular value of
# their product says what is left of a difference between streams after all sites. (For every single
# token it is 1 with rotations; the mean over tokens that turn differently is shorter.)

# %%
figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), layout="constrained")
for row, (name, (model, _, stats)) in zip(axes, runs.items(), strict=True):
    mean = stats["h_res"][:-1] / stats["count"][:-1, None, None]
    for axis, site, matrix in zip(row, model.site_names, mean, strict=True):
        deviation = matrix - torch.eye(4)
        scale = deviation.abs().max().item()
        axis.imshow(deviation, cmap="RdBu_r", vmin=-scale, vmax=scale)
        axis.set(title=f"{name} {site}: ±{scale:.3f}", xticks=range(4), yticks=range(4))
        axis.title.set_fontsize(8)
    product = torch.linalg.multi_dot(list(mean.flip(0)))
    smallest = torch.linalg.svdvals(product)[-1].item()
    print(f"{name:10} smallest singular value of the product of mean matrices: {smallest:.3f}")
axes[0, 0].set_ylabel("destination")
axes[1, 0].set(ylabel="destination", xlabel="source")
plt.show()

# %% [markdown]
# ## Where to go from here
#
# - `hyperstreams list mixers`: the published ones, most no longer than this one.
# - `static_logit_count`: logits that are one parameter per site, not predicted for every token.
# - The PyTorch map above is already surrounded by the fused `project`, `read` and `mix_write`. A
#   kernel of its own is one header: CONTRIBUTING.md, "Add a mixer".
