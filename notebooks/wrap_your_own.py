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
# # Wrap your own model, train it, watch its streams
#
# A transformer adds every branch to one residual stream. Hyper-Connections keep *n* parallel
# streams and learn, at every branch, how to **read** from them, **mix** them and **write** back.
# This notebook takes a small model of your own, replaces its additions by such connections,
# trains it for a minute on real text and looks at which streams it uses. It needs `pip install
# hyperstreams[plot]` and a laptop.

# %%
import os
import sysconfig
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from hyperstreams import diagnostics, ops
from hyperstreams import nn as hnn
from torch import nn

STEPS = int(os.environ.get("HYPERSTREAMS_NOTEBOOK_STEPS", "300"))
WIDTH, HEADS, LAYERS, CONTEXT, STREAMS = 64, 4, 3, 64, 4
torch.manual_seed(0)

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

    def forward(self, tokens, collect_stats=False):
        h = self.embed(tokens) + self.position[: tokens.shape[1]]
        streams = self.expand(h, collect_stats=collect_stats)
        for site in self.sites:
            streams = site(streams)
        logits = self.head(self.reduce(streams))
        return (logits, streams.stats) if collect_stats else logits


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
split = int(0.9 * len(data))
print(f"{len(data):,} bytes from {len(sources)} files")


def batch(part, generator, size=16):
    low, high = (0, split) if part == "train" else (split, len(data))
    starts = torch.randint(low, high - CONTEXT - 1, (size, 1), generator=generator)
    window = data[starts + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


# %% [markdown]
# ## Train
#
# Connection parameters go into a group of their own without weight decay: decay alone would move
# the mixers.

# %%
connection_parameters = [p for site in model.sites for p in site.connection.parameters()]
connection_ids = {id(p) for p in connection_parameters}
others = [p for p in model.parameters() if id(p) not in connection_ids]
optimizer = torch.optim.AdamW(
    [
        {"params": others, "weight_decay": 0.1},
        {"params": connection_parameters, "weight_decay": 0.0},
    ],
    lr=3e-3,
)


def loss_of(model, tokens, targets):
    return nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def stream_sums(model):
    """Sums over the tokens of four held-out batches, one row per site, unpacked by name."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        total = sum(model(batch("held out", generator)[0], collect_stats=True)[1] for _ in range(4))
    return ops.unpack_stream_stats(total, STREAMS)


before = stream_sums(model)
generator = torch.Generator().manual_seed(2)
losses = []
for step in range(STEPS):
    optimizer.zero_grad()
    loss = loss_of(model, *batch("train", generator))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
    if step % max(1, STEPS // 6) == 0:
        print(f"step {step:4d}  loss {losses[-1]:.3f} nats per byte")
after = stream_sums(model)

# %% [markdown]
# ## Look: who is read, who is written
#
# The statistics are outputs of the ops, not hooks: they work the same under `torch.compile`. The
# dashed line is the share at initialisation. Without it one cannot tell *collapsed by training*
# from *initialised that way*: mHC-lite starts by favouring one stream at each site (0.475 against
# 0.175).

# %%
names = [f"L{k // 2}{'am'[k % 2]}" for k in range(len(model.sites))]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for axis, field in zip(axes, ("read_share", "write_share"), strict=True):
    start = before[field] / before["count"].unsqueeze(-1)
    end = after[field] / after["count"].unsqueeze(-1)
    for stream in range(STREAMS):
        (line,) = axis.plot(names, end[:, stream], marker="o", label=f"stream {stream}")
        axis.plot(names, start[:, stream], linestyle="--", alpha=0.5, color=line.get_color())
    axis.axhline(1 / STREAMS, color="0.6", linewidth=0.8)
    axis.set(title=field.replace("_", " "), xlabel="site", ylim=(0, 1))
axes[0].set_ylabel("share (mean over tokens)")
axes[1].legend(fontsize=8)
figure.suptitle("After training (solid) and at initialisation (dashed); grey line: balanced")
plt.show()

# %% [markdown]
# ## One number per site
#
# The effective number of streams: 4 when all are used equally, 1 when one does everything.

# %%
share = after["write_share"] / after["count"].unsqueeze(-1)
initial = before["write_share"] / before["count"].unsqueeze(-1)
print("site   effective streams written (at initialisation)")
for name, now, then in zip(
    names,
    diagnostics.metrics.effective_streams(share),
    diagnostics.metrics.effective_streams(initial),
    strict=True,
):
    print(f"{name}    {now:.2f} ({then:.2f})")
assert losses[-1] < losses[0]

# %% [markdown]
# ## Where to go from here
#
# - `ByteModel("mhc")`, `"hc"`, `"hc_static"`, `"identity"`: any connection, same code.
# - `hyperstreams compare --connections residual,mhc_lite,mhc --seeds 3`: a fair comparison.
# - `hyperstreams demo`: the collapse figures of arXiv 2606.03483 on your own machine.
