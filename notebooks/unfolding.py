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
# # Unfolding a hyper-connected network
#
# In a plain transformer every sublayer reads the sum of everything written before it, all with
# weight 1. With Hyper-Connections the streams hide who reads whom. But reading, mixing and writing
# are linear: given the coefficients, the input of a sublayer is still a weighted sum of the
# embedding and of all earlier outputs, and the weights can be computed exactly. This notebook
# *unfolds* two small models into those weights and reads the picture. It needs `pip install
# hyperstreams[plot]` and half a minute.

# %%
import os
import sysconfig
from pathlib import Path

import hyperstreams as hs
import matplotlib.pyplot as plt
import torch
from hyperstreams.diagnostics import ledger, patterns, trace

STEPS = int(os.environ.get("HYPERSTREAMS_NOTEBOOK_STEPS", "100"))
STREAMS, CONTEXT = 4, 64
torch.set_num_threads(1)  # models this small gain nothing from a second

# %% [markdown]
# ## Two models on the same text
#
# `hc` may mix its streams freely and starts as a plain residual network. `mhc_lite` mixes by a
# weighted mean of permutations, and each of its sites starts by favouring one stream. Its
# connections learn at ten times the learning rate: in a run this short little would move otherwise.

# %%
sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
text = b"\n".join(path.read_bytes() for path in sources)
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def windows(generator, size=8):
    starts = torch.randint(len(data) - CONTEXT - 1, (size, 1), generator=generator)
    window = data[starts + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


def make(connection):
    config = hs.GPTConfig(
        n_layer=4,
        n_head=4,
        width=48,
        block_size=CONTEXT,
        connection=connection,
        n_streams=STREAMS,
        final_norm="after_reduce",
    )
    return hs.GPT(config, generator=torch.Generator().manual_seed(1))


def train(model, connection_lr, lr=5e-3):
    groups = model.parameter_groups()
    for group in groups:
        group["lr"] = connection_lr if group["name"].startswith("connection") else lr
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        loss = model(*windows(generator))[1]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return loss.item()


look_at = windows(torch.Generator().manual_seed(7))
traces = {}
for connection, connection_lr in (("hc", 1e-3), ("mhc_lite", 5e-2)):
    model = make(connection)
    traces[connection, "at the start"] = trace(model, *look_at)
    loss = train(model, connection_lr)
    traces[connection, "trained"] = trace(model, *look_at)
    print(f"{connection}: {loss:.2f} nats per byte after {STEPS} steps")

# %% [markdown]
# ## The weights, and a check
#
# `trace` keeps what every site computed for every token. The *ledger* writes each stream as a sum
# of what was written to it; what a site reads from its streams then follows. If the weights are
# right, putting the writers together with them gives back the very input that the branch saw.


# %%
def unfold(t):
    """Weights of each writer in each site's input and in the readout, for every token."""
    # The readout as the mean of the streams: the norm after it makes the scale free.
    mean = torch.full((STREAMS,), 1 / STREAMS)
    return ledger.contributions(t.h_pre, ledger.ledger(t.h_res, t.h_post), readout=mean)


for name, t in traces.items():
    written = ledger.writers(t.streams[0], t.branch_out, replicated=True)
    rebuilt = torch.einsum("k...w,...wc->k...c", unfold(t)[:-1], written)
    error = ((rebuilt - t.branch_in).norm() / t.branch_in.norm()).item()
    print(f"{' '.join(name):24} inputs rebuilt from the writers: relative error {error:.0e}")
    assert error < 1e-4

# %% [markdown]
# ## The picture
#
# A row is a reader, a column a writer. The number is the weight, averaged over tokens; the colour
# is that weight beside the largest in its row. Upper left: before training, `hc` *is* the plain
# residual network, all ones (the readout adds four equal streams).

# %%
sites = [*traces["hc", "trained"].site_names]
means = {name: unfold(t).flatten(1, -2).mean(dim=1) for name, t in traces.items()}
figure, axes = plt.subplots(2, 2, figsize=(9.2, 8.4), layout="constrained")
for axis, (name, mean) in zip(axes.flat, means.items(), strict=True):
    relative = mean / mean.abs().amax(dim=1, keepdim=True)
    hidden = torch.ones_like(mean).triu(1).bool()
    picture = axis.imshow(relative.masked_fill(hidden, torch.nan), cmap="RdBu_r", vmin=-1, vmax=1)
    for row in range(len(mean)):
        for column in range(row + 1):
            value = mean[row, column].item()
            axis.text(
                column,
                row,
                f"{value:.1f}" if abs(value) < 99.5 else f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if abs(relative[row, column]) > 0.75 else "black",
            )
    axis.set(title=f"{name[0]}, {name[1]}", xlabel="written by", ylabel="read by")
    axis.set_xticks(range(len(sites) + 1), ["embed", *sites], rotation=90)
    axis.set_yticks(range(len(sites) + 1), [*sites, "readout"])
figure.colorbar(picture, ax=axes, shrink=0.5, label="weight / largest weight in the row")
plt.show()

# %% [markdown]
# ## What to look for
#
# The HC paper (arXiv 2409.19606) reads three shapes in its pictures: a **Λ**, weight that decays
# with distance while the embedding stays in reach; **parallel blocks**, neighbours that ignore each
# other and read the same; and an embedding that is **gone from the readout**. First the shapes as
# the detectors see them in matrices made by hand, then ours.


# %%
def planted_lambda(size):
    rows = torch.arange(size)
    distance = (rows[:, None] - rows).clamp(min=0)
    c = torch.exp(-0.5 * distance).tril()
    c[:, 0] = 1.0
    return c


def planted_parallel(size):
    c = torch.ones(size, size).tril()
    c[4, 4] = 0.0  # site 4 does not read site 3, which reads what it reads
    return c


examples = {
    "plain residual": torch.ones(9, 9).tril(),
    "Λ, by hand": planted_lambda(9),
    "parallel pair, by hand": planted_parallel(9),
    **{" ".join(name): mean for name, mean in means.items()},
}
print(f"{'':24} {'decay':>7} {'Λ':>5}  parallel pairs   embedding in the readout")
for name, c in examples.items():
    found = patterns.lambda_pattern(c)
    pairs = patterns.parallel_blocks(c).detected.nonzero().flatten().tolist()
    named = ", ".join(f"{sites[k]}+{sites[k + 1]}" for k in pairs) or "none"
    share = patterns.readout_embedding_weight(c)
    print(f"{name:24} {found.decay:7.2f} {found.detected!s:>5}  {named:15}  {share:.2f}")

# %% [markdown]
# A run this short shows how to read, not what large models do: report what you see, with the plain
# residual line (decay 0, embedding `1/9`) beside it.
#
# ## How many streams does it take?
#
# Cut the network before a site: later readers on one side, earlier writers on the other. The
# singular values of that block of weights say through how many independent channels the two sides
# talk. This **cut rank** is 1 for a plain residual network and at most `n`, and no relabelling of
# the streams can change it. It starts at 1 because all streams begin as copies of one embedding.

# %%
cuts = [*sites, "readout"]
figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
for connection, colour, marker in (("hc", "#4D4D4D", "o"), ("mhc_lite", "#B8860B", "s")):
    for moment, style in (("at the start", "--"), ("trained", "-")):
        rank = ledger.cut_rank(means[connection, moment])
        label = f"{connection}, {moment}"
        axis.plot(cuts, rank, style, color=colour, marker=marker, markersize=4, label=label)
axis.axhline(STREAMS, color="0.6", linewidth=0.8)
axis.text(len(cuts) - 1, STREAMS - 0.05, "all streams", color="0.4", va="top", ha="right")
axis.axhline(1, color="0.6", linewidth=0.8)
axis.text(len(cuts) - 1, 0.95, "a plain residual network", color="0.4", va="top", ha="right")
axis.set(xlabel="cut before", ylabel="cut rank", ylim=(0.6, STREAMS + 0.2))
axis.tick_params(axis="x", rotation=45)
axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
plt.show()

# %% [markdown]
# ## Where to go from here
#
# - `contributions` gives the weights of every token: the means above hide how much they vary.
# - `ledger.contribution_norm` multiplies by the length of what was written.
# - `hyperstreams figure hc-unfolded` and `hc-patterns`: these pictures for a run of your own.
