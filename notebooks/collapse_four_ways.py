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
# # Collapse, diagnosed four ways
#
# Four different failures are called *stream collapse*, and a picture that shows one of them says
# nothing about the others:
#
# | kind | what happens | gauge |
# |---|---|---|
# | **usage** | reads and writes concentrate on one stream | effective streams of the shares |
# | **averaging** | mixing makes every stream the mean of all | contraction of the composite mixer |
# | **redundancy** | streams become parallel | effective rank of the streams |
# | **causal** | taking streams away costs nothing | effect of ablation on the output |
#
# This notebook trains a small model that has each of them on purpose, holds all four gauges to each,
# and then shows how to look at a model of your own. It needs `pip install hyperstreams[plot]` and
# half a minute.

# %%
import contextlib
import os
import sysconfig
from pathlib import Path

import hyperstreams as hs
import matplotlib.pyplot as plt
import torch
from hyperstreams.diagnostics import (
    Ablate,
    Replace,
    ablation_matrix,
    collapse_report,
    composite,
    effects,
    hooks,
    metrics,
    similarity,
    trace,
)
from hyperstreams.reproduce.style import FAINT, stream_colour, stream_marker

STEPS = int(os.environ.get("HYPERSTREAMS_NOTEBOOK_STEPS", "60"))
STREAMS, CONTEXT = 4, 48
torch.set_num_threads(1)  # models this small gain nothing from a second

# %%
sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
text = b"\n".join(path.read_bytes() for path in sources)
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def windows(seed, size=8):
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(data) - CONTEXT - 1, (size, 1), generator=generator)
    window = data[starts + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


# %% [markdown]
# ## Four patients, and a healthy one
#
# `intervene` and `hooks` change a model from inside while it runs, and gradients flow through the
# change. So each model is trained *with* its illness, and copes as well as it can. The healthy one
# has streams that are different by design: its sites write into one stream each, in turn.


# %%
def one_each(h_post, name):
    """The write of site k goes to stream k mod n, with the same total weight."""
    _, layer, kind, _ = name.split(".")
    stream = (2 * int(layer) + (kind == "mlp_hc")) % STREAMS
    alone = torch.zeros_like(h_post)
    alone[..., stream] = h_post.sum(dim=-1)
    return alone


def only_stream_0(weights, name):
    """All reading and writing through stream 0, with the same total weight."""
    alone = torch.zeros_like(weights)
    alone[..., 0] = weights.sum(dim=-1)
    return alone


def parallel(streams, name):
    """Every stream points where stream 0 points, at its own length."""
    length = streams.norm(dim=-1, keepdim=True)
    return streams[..., :1, :] * length / (length[..., :1, :] + 1e-6)


def by_hooks(**functions):
    return lambda model: hooks(model, {f"*.hook_{point}": f for point, f in functions.items()})


def by_edits(*edits):
    return lambda model: hs.intervene(model, *edits)


HEALTHY = by_hooks(post=one_each)
ILLNESSES = {
    "none": by_hooks(),
    "usage": by_hooks(pre=only_stream_0, post=only_stream_0),
    "averaging": by_edits(Replace("mixer", "uniform")),
    "redundancy": by_hooks(streams_in=parallel),
    "causal": by_edits(Ablate([1, 2, 3], by="mean")),
}


@contextlib.contextmanager
def ill(model, illness):
    with HEALTHY(model), ILLNESSES[illness](model):
        yield


def make():
    config = hs.GPTConfig(
        n_layer=3,
        n_head=4,
        width=48,
        block_size=CONTEXT,
        connection="mhc_lite",
        n_streams=STREAMS,
        expand="learned_scale",
        final_norm="after_reduce",
    )
    return hs.GPT(config, generator=torch.Generator().manual_seed(1))


def train(model):
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=5e-3, betas=(0.9, 0.95))
    for step in range(STEPS):
        loss = model(*windows(step))[1]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return loss.item()


models = {}
for illness in ILLNESSES:
    models[illness] = make()
    with ill(models[illness], illness):
        loss = train(models[illness])
    print(f"planted: {illness:10} {loss:.2f} nats per byte after {STEPS} steps")

# %% [markdown]
# (In the *causal* case streams 1 to 3 are read, written, mixed and different from each other, but
# hold the same vectors for every token: nothing that a reader could use.)
#
# ## Four gauges
#
# Three look at what the model computes (`trace` keeps it), the fourth takes streams away and sees
# what becomes of the output. Each is one number here, with its best value beside it.


# %%
look_at = windows(1000)
mean_over_tokens = lambda values: values.flatten(1, -2).mean(dim=1)  # noqa: E731


def usage(t):
    """Effective streams that a site reads, mean over sites."""
    return metrics.effective_streams(mean_over_tokens(metrics.share(t.h_pre))).mean().item()


def averaging(t):
    """What differences between streams keep on the way through all mixers."""
    return composite.contraction(composite.composites(t.h_res)[-1]).mean().item()


def redundancy(t):
    """Directions among a token's streams at the readout, lengths aside."""
    streams = t.streams[-1].double()
    return similarity.effective_rank(streams @ streams.mT, unit_norm=True).mean().item()


def ablation(model):
    """KL in nats when one stream at a time is replaced by its token mean at every site."""
    plans = {f"s{stream}": Ablate([stream], by="mean") for stream in range(STREAMS)}
    return effects(model, plans, [look_at]).mean("kl")


def causal(model):
    """Streams that the output needs: effective number of the four effects."""
    return metrics.effective_streams(metrics.share(ablation(model))).item()


GAUGES = {
    "usage\neffective streams": (1, STREAMS),
    "averaging\ncontraction": (0, 1),
    "redundancy\neffective rank": (1, STREAMS),
    "causal\nneeded streams": (1, STREAMS),
}
rows = {}
for illness, model in models.items():
    with ill(model, illness):
        t = trace(model, *look_at)
        rows[illness] = [usage(t), averaging(t), redundancy(t), causal(model)]

# %% [markdown]
# ## Each gauge sees its own illness
#
# Dark blue is the best value of a gauge, dark red its worst.

# %%
values = torch.tensor(list(rows.values()))
low, high = torch.tensor(list(GAUGES.values()), dtype=torch.float).T
health = (values - low) / (high - low)
figure, axis = plt.subplots(figsize=(7.8, 4.2), layout="constrained")
picture = axis.imshow(health, cmap="RdYlBu", vmin=0, vmax=1, aspect="auto")
for row in range(len(rows)):
    for column in range(len(GAUGES)):
        shade = health[row, column].item()
        colour = "white" if shade < 0.12 or shade > 0.9 else "black"
        number = f"{values[row, column]:.2f}"
        axis.text(column, row, number, ha="center", va="center", color=colour)
axis.set_xticks(range(len(GAUGES)), GAUGES)
axis.set_yticks(range(len(rows)), rows)
axis.xaxis.tick_top()
axis.set_ylabel("what was planted")
bar = figure.colorbar(picture, ax=axis, ticks=[0, 1])
bar.ax.set_yticklabels(["collapsed", "not at all"])
plt.show()

# %% [markdown]
# On the diagonal every gauge finds what was planted. Beside it:
#
# - Averaged streams are redundant too, but redundant streams need not come from averaging.
# - Streams that nobody reads can be taken away for nothing, but streams that can be taken away may
#   be read all the time (last row: reading is as balanced as ever).
# - Redundant streams can each be needed: their lengths differ, and a reader sees the sum.
# - Nothing planted, and the effective rank is far from 4: sites write similar things.
#
# So there is no collapse *score* here, and a model should never be judged by one gauge.
#
# ## A model of your own
#
# The same without any planting: a model as it comes, and the same model before training, because
# many of these numbers are far from their best at the first step. `collapse_report` puts the
# measures of all four kinds side by side.

# %%
model, untrained = make(), make()
train(model)
after, before = trace(model, *look_at), trace(untrained, *look_at)
kl_after, kl_before = (
    ablation_matrix(m, [look_at], by="mean").mean("kl") for m in (model, untrained)
)
report = collapse_report(
    after, initial=before, ablation_kl=kl_after, initial_ablation_kl=kl_before
)
print(f"{'':42} {'value':>6} {'at start':>9} {'collapsed':>10}")
for kind, entry in report.items():
    print(f"{kind}: {entry.question}")
    for name, m in entry.measures.items():
        print(f"    {name:38} {m.value:6.2f} {m.initial:9.2f} {m.collapsed:10.2f}")

# %% [markdown]
# And over depth, solid as trained, dashed before: where does it happen?

# %%
sites, states = [*after.site_names], [*after.site_names, "readout"]
figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
(who, mixed), (alike, needed) = axes
for t, style in ((before, "--"), (after, "-")):
    for h, marker, label in ((t.h_pre, "o", "read"), (t.h_post, "s", "written")):
        count = metrics.effective_streams(mean_over_tokens(metrics.share(h)))
        label = label if style == "-" else None
        colour = "#4D4D4D" if marker == "o" else "#B8860B"
        who.plot(sites, count, style, color=colour, marker=marker, markersize=4, label=label)
    left = composite.contraction(composite.composites(t.h_res)).flatten(1).mean(dim=1)
    mixed.plot(states, left, style, color="#4D4D4D", marker="o", markersize=4)
    gram = t.streams.double() @ t.streams.double().mT
    rank = similarity.effective_rank(gram, unit_norm=True).flatten(1).mean(dim=1)
    alike.plot(states, rank, style, color="#4D4D4D", marker="o", markersize=4)
for kl, style in ((kl_before, "--"), (kl_after, "-")):
    for stream in range(STREAMS):
        needed.plot(
            states,
            kl[stream],
            style,
            color=stream_colour(stream),
            marker=stream_marker(stream),
            markersize=4,
            label=f"stream {stream}" if style == "-" else None,
        )
titles = {
    who: ("usage: effective streams", (0.8, STREAMS + 0.2), (1, STREAMS)),
    mixed: ("averaging: what mixing left of differences", (-0.05, 1.05), (0, 1)),
    alike: ("redundancy: effective rank", (0.8, STREAMS + 0.2), (1, STREAMS)),
    needed: ("causal: KL without one stream (nats)", (None, None), (0,)),
}
for axis, (title, limits, levels) in titles.items():
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_ylim(*limits)
    for level in levels:
        axis.axhline(level, color=FAINT, linewidth=0.8)
who.legend(fontsize=8, frameon=False)
needed.legend(fontsize=8, frameon=False)
plt.show()

# %% [markdown]
# ## Where to go from here
#
# - One run of a minute shows how to look. Differences between seeds are large at this size: take
#   several, and report each kind.
# - `hyperstreams figure interventions`: ablation, rescue and mixer replacement for a trained run.
# - `probe.alarm()` during training: has the usage fallen since the start by more than chance?
