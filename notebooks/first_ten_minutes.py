# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The first ten minutes: wrap, train, look
#
# A transformer adds every branch to one residual stream. Hyper-Connections keep *n* parallel
# streams and learn, at every branch, how to **read** from them, **mix** them and **write** back.
# This notebook takes a small model of your own, replaces its additions by such connections,
# trains it for half a minute on real text and watches which streams it uses. It needs `pip install
# hyperstreams[plot]` and a laptop.

# %%
import os
import sysconfig
from pathlib import Path

import hyperstreams as hs
import matplotlib.pyplot as plt
import torch
from hyperstreams import nn as hnn
from hyperstreams.diagnostics import metrics, quantity
from hyperstreams.reproduce.style import FAINT, stream_colour, stream_marker
from torch import nn

STEPS = int(os.environ.get("HYPERSTREAMS_NOTEBOOK_STEPS", "200"))
WIDTH, HEADS, LAYERS, CONTEXT, STREAMS = 64, 4, 3, 64, 4
torch.manual_seed(0)
torch.set_num_threads(1)  # a model this small gains nothing from a second

# %% [markdown]
# ## Your branches
#
# A branch is anything that maps `[..., C]` to `[..., C]`, its own norm included. Nothing in these
# two knows about streams.


# %%
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, h):
        batch, tokens, _ = h.shape
        qkv = self.qkv(self.norm(h)).view(batch, tokens, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))


def mlp():
    return nn.Sequential(
        nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
    )


# %% [markdown]
# ## Three lines instead of `h = h + branch(h)`
#
# `ExpandStreams` once after the embedding, one `HyperConnection` around each branch,
# `ReduceStreams` once before the output. The scheme `learned_scale` gives every stream its own
# view of the embedding (Learned Stream Scaling), so that the streams can tell themselves apart
# from the first step.


# %%
class ByteModel(nn.Module):
    def __init__(self, connection):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.embed = nn.Embedding(256, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        branches = [make() for _ in range(LAYERS) for make in (Attention, mlp)]
        shape = {"n_streams": STREAMS, "width": WIDTH}
        self.expand = hnn.ExpandStreams(scheme="learned_scale", generator=generator, **shape)
        self.sites = nn.ModuleList(
            hnn.HyperConnection(
                branch, connection=connection, site_index=k, generator=generator, **shape
            )
            for k, branch in enumerate(branches)
        )
        self.reduce = hnn.ReduceStreams(scheme="sum", norm=nn.LayerNorm(WIDTH), **shape)
        self.head = nn.Linear(WIDTH, 256)
        self.site_names = [f"L{k // 2}{'am'[k % 2]}" for k in range(len(branches))]

    def forward(self, tokens):
        streams = self.expand(self.embed(tokens) + self.position[: tokens.shape[1]])
        for site in self.sites:
            streams = site(streams)
        return self.head(self.reduce(streams))


model = ByteModel("mhc_lite")
extra = sum(p.numel() for site in model.sites for p in site.connection.parameters())
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {extra:,} in the connections")
print(model.sites[0].connection)

# %% [markdown]
# ## Real text, already on your disk: the Python standard library

# %%
sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
text = b"\n".join(path.read_bytes() for path in sources)
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
print(f"{len(data):,} bytes from {len(sources)} files")


def batch(generator, size=16):
    starts = torch.randint(len(data) - CONTEXT - 1, (size, 1), generator=generator)
    window = data[starts + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


# %% [markdown]
# ## Train, with a probe
#
# Connection parameters go into a group of their own without weight decay: decay alone would move
# the mixers. The `Probe` takes its numbers from the forwards of the training itself, on sampled
# steps; on all others the model runs as if it were not there.

# %%
connection_parameters = [p for site in model.sites for p in site.connection.parameters()]
connection_ids = {id(p) for p in connection_parameters}
others = [p for p in model.parameters() if id(p) not in connection_ids]
optimizer = torch.optim.AdamW(
    [
        {"params": others, "weight_decay": 0.1},
        {"params": connection_parameters, "weight_decay": 0.0},
    ],
    lr=5e-3,
)
generator = torch.Generator().manual_seed(2)
losses = []
with hs.Probe(model, every=max(1, (STEPS - 1) // 10)) as probe:
    for step in range(STEPS):
        tokens, targets = batch(generator)
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        seen = probe.scalars(step)
        if seen and step % probe.every == 0:
            written = seen["write_effective_streams/mean"]
            print(f"step {step:3d}  loss {losses[-1]:.2f}  effective streams written {written:.2f}")
assert losses[-1] < losses[0]

# %% [markdown]
# ## Look: who is read, who is written
#
# Solid: at the last sample. Dashed: before the first step. Without the dashed line one cannot tell
# *collapsed by training* from *initialised that way*: mHC-lite starts by favouring one stream at
# each site (0.475 against 0.175).

# %%
first, *_, last = probe.samples.values()
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axis, side in zip(axes, ("read", "write"), strict=True):
    start, end = (quantity(f"{side}_share", sample) for sample in (first, last))
    for stream in range(STREAMS):
        colour, marker = stream_colour(stream), stream_marker(stream)
        axis.plot(start[:, stream], "--", color=colour, linewidth=1, alpha=0.6)
        axis.plot(
            model.site_names,
            end[:, stream],
            color=colour,
            marker=marker,
            markersize=4,
            label=f"stream {stream}",
        )
    axis.axhline(1 / STREAMS, color=FAINT, linewidth=0.8)
    axis.set(title=f"{side} share", xlabel="site (a: attention, m: MLP)", ylim=(0, 1))
axes[0].set_ylabel("share, mean over tokens")
axes[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
figure.suptitle("trained (solid), at initialisation (dashed), balanced (grey)", fontsize=10)
plt.show()

# %% [markdown]
# ## One number per site, while it trains
#
# The **effective number of streams** is the exponential of the entropy of a share: 4 when all are
# used equally, 1 when one does everything. All curves begin at the same value, that of the shares
# 0.475 and 0.175.

# %%
steps = list(probe.samples)
history = torch.stack(
    [quantity("write_effective_streams", sample) for sample in probe.samples.values()]
)
initial = metrics.effective_streams(torch.tensor([0.475, 0.175, 0.175, 0.175])).item()
figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
shades = plt.get_cmap("viridis")(torch.linspace(0, 0.85, len(model.site_names)).numpy())
for site, name in enumerate(model.site_names):
    style = "-" if name.endswith("a") else "--"
    axis.plot(steps, history[:, site], style, color=shades[site], label=name)
for level, text in ((STREAMS, "balanced"), (initial, "at initialisation"), (1, "one stream")):
    axis.axhline(level, color=FAINT, linewidth=0.8)
    axis.text(steps[-1], level + 0.04, text, color="0.35", ha="right", fontsize=8)
axis.set(xlabel="step", ylabel="effective streams written", ylim=(0.8, STREAMS + 0.3))
axis.legend(title="site", fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()

# %% [markdown]
# Two hundred steps of one seed show how to look, not what is true: other seeds use other streams.
#
# ## Where to go from here
#
# - `ByteModel("mhc")`, `"hc"`, `"hc_static"`, `"identity"`: any connection, same code.
# - Few effective streams are one of four things called collapse: see the notebook on the four.
# - `hyperstreams compare --connections residual,mhc_lite,mhc --seeds 3`: a fair comparison.
# - `hyperstreams demo`: the collapse figures of arXiv 2606.03483 on your own machine.
