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
# # Reading a foreign checkpoint
#
# Somebody gives you a checkpoint of a model with Hyper-Connections, trained with other code. Which
# streams does it use, and how much does it mix? This notebook loads such a file, checks that nothing
# was turned around on the way, and looks inside. It needs `pip install hyperstreams[plot]` and half
# a minute, and downloads nothing: we make the foreign file ourselves.

# %%
import os
import sysconfig
import tempfile
from pathlib import Path

import hyperstreams as hs
import matplotlib.pyplot as plt
import torch
from hyperstreams import diagnostics, interop
from hyperstreams.reproduce.style import FAINT, REFERENCE, stream_colour, stream_marker

STEPS = int(os.environ.get("HYPERSTREAMS_NOTEBOOK_STEPS", "100"))
STREAMS, CONTEXT = 4, 64
torch.set_num_threads(1)  # a model this small gains nothing from a second
print("layouts that are read:", ", ".join(interop.FOREIGN))

# %% [markdown]
# ## Somebody else's file
#
# A small mHC-lite model, trained for some seconds and written in the layout of
# [hc-stream-collapse](https://github.com/brain-lab-research/hc-stream-collapse), the code of arXiv
# 2606.03483. Skip this cell if you have a file of your own.

# %%
sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
text = b"\n".join(path.read_bytes() for path in sources)
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def windows(generator, size=8):
    starts = torch.randint(len(data) - CONTEXT - 1, (size, 1), generator=generator)
    window = data[starts + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


config = hs.GPTConfig(
    n_layer=4,
    n_head=4,
    width=48,
    block_size=CONTEXT,
    connection="mhc_lite",
    n_streams=STREAMS,
)
theirs = hs.GPT(config, generator=torch.Generator().manual_seed(1))
groups = theirs.parameter_groups()
for group in groups:  # ten times the rate: in a run this short little would move otherwise
    group["lr"] = 5e-2 if group["name"].startswith("connection") else 5e-3
optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
generator = torch.Generator().manual_seed(2)
for _ in range(STEPS):
    loss = theirs(*windows(generator))[1]
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    optimizer.step()

folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "ckpt.pt"
torch.save(hs.to_foreign(theirs, "nanogpt"), file)
print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, {loss.item():.2f} nats per byte")

# %% [markdown]
# ## What is in the file
#
# Their names, their shapes. Nothing here says which entry of `static_alpha` is a read and which a
# mixing logit, or which way around a matrix lies. (Files are read *weights-only*: no code of theirs
# runs on your machine.)

# %%
stored = torch.load(file, weights_only=True)
for name, value in stored["model"].items():
    if name.startswith("transformer.h.0.hc_mlp.") and ".branch." not in name:
        print(f"{name:45} {list(value.shape)}")

# %% [markdown]
# ## Load it
#
# The layout is detected from the names. The report says what became of every tensor: what was
# transposed, and what the file does not say and was taken for granted. Read the last part: it is
# where a wrong reading would come from.

# %%
model, report = hs.load_foreign(file)
print(report)

# %% [markdown]
# ## Trust, but check
#
# Read one tensor the wrong way around and the model still talks; no error is raised and the loss
# hardly tells. So compare logits: here with the model that wrote the file; for a real file, with one
# batch from the code that it came from.

# %%
look_at = windows(torch.Generator().manual_seed(7))
wrong = dict(stored["model"])
for name, value in stored["model"].items():
    if name.endswith("static_beta"):
        wrong[name] = value.flip(0)  # as if streams were numbered from the other end
careless, _ = hs.load_foreign({"model": wrong, "model_args": stored["model_args"]})

with torch.no_grad():
    expected = theirs.eval()(*look_at)[0]
    for label, loaded in (("loaded", model), ("with the write logits in the wrong order", careless)):
        logits, loss = loaded.eval()(*look_at)
        gap = (logits - expected).abs().max().item()
        print(f"{label}: loss {loss.item():.3f}, logits off by {gap:.1e} at most")
        if loaded is model:
            assert gap < 1e-3

# %% [markdown]
# ## Look at its streams
#
# From here on it is a model like any other. Three questions, over depth: from which stream does
# each site read, into which does it write, and how long do the streams grow? The dotted lines are
# where mHC-lite starts at every site: one stream with 0.475, the others with 0.175. The grey line is
# balanced use.

# %%
batches = [windows(torch.Generator().manual_seed(seed)) for seed in range(10, 14)]
seen = diagnostics.capture(model, batches)
panels = {
    "read_share": "Who is read (share of the read weights)",
    "write_share": "Who is written (share of the write weights)",
    "norm": "How long each stream is (L2 norm)",
}
figure, axes = plt.subplots(3, 1, figsize=(6.4, 7.2), layout="constrained", sharex=True)
for axis, (name, title) in zip(axes, panels.items(), strict=True):
    values = diagnostics.quantity(name, seen)
    for stream in range(STREAMS):
        axis.plot(
            seen.state_names[: len(values)],
            values[:, stream],
            color=stream_colour(stream),
            marker=stream_marker(stream),
            markersize=4,
            label=f"stream {stream}",
        )
    if name != "norm":
        for level in (0.475, 0.175):
            axis.axhline(level, color=REFERENCE, linestyle=":", linewidth=1)
        axis.axhline(1 / STREAMS, color=FAINT, linewidth=0.8)
        axis.set_ylim(0, 1)
    else:
        fresh = diagnostics.capture(hs.GPT(model.config, generator=torch.Generator()), batches)
        start = diagnostics.quantity("norm", fresh)
        label = "at initialisation (mean)"
        axis.plot(fresh.state_names, start.mean(1), ":", color=REFERENCE, linewidth=1, label=label)
        axis.set_ylim(bottom=0)
    axis.set_title(title, loc="left", fontsize=10)
axes[-1].set_xlabel("site (a: attention, m: MLP)")
axes[-1].legend(fontsize=8, frameon=False, ncols=2, loc="lower right")
plt.show()

# %% [markdown]
# ## Only the connections
#
# For models too large for your machine, the connections alone are enough for much of this: they are
# a few megabytes of many gigabytes. The layouts of DeepSeek-V4, Megatron-LM and others give their
# connections, without the branches. Again we write the file first, here from DeepSeek-V4's
# connection with random weights.

# %%
v4 = hs.GPT(
    hs.GPTConfig(
        n_layer=2,
        n_head=4,
        width=48,
        connection="deepseek_v4",
        reduce="published",
        final_norm="published",
    ),
    generator=torch.Generator().manual_seed(3),
)
generator = torch.Generator().manual_seed(4)
with torch.no_grad():
    for name, parameter in v4.named_parameters():
        if ".connection." in name:
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator))
state = hs.to_foreign(v4, "deepseek_v4")
connections, report = hs.load_foreign(state)
print(report)

# %% [markdown]
# On a state of zeros the dynamic part is silent: what is left are the static coefficients. Mixers
# are drawn as `h_res[destination, source]`, whatever the file's orientation was; below each stands
# how much of a difference between streams can come through it at most: 1 without mixing, 0 when the
# streams are averaged.

# %%
places = [name for name in connections if name != "head"]
figure, axes = plt.subplots(1, len(places), figsize=(9, 2.9), layout="constrained")
for axis, place in zip(axes, places, strict=True):
    with torch.no_grad():
        _, _, h_res = connections[place].coefficients(torch.zeros(1, STREAMS, 48))
    picture = axis.imshow(h_res[0], cmap="viridis", vmin=0, vmax=1)
    for j in range(STREAMS):
        for i in range(STREAMS):
            value = h_res[0, j, i].item()
            colour = "black" if value > 0.6 else "white"
            axis.text(i, j, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    kept = diagnostics.composite.contraction(h_res)[0].item()
    axis.set(title=place, xlabel=f"source\nkeeps {kept:.2f}", xticks=range(4), yticks=range(4))
axes[0].set_ylabel("destination")
figure.colorbar(picture, ax=axes, label="weight")
plt.show()

# %%
folder.cleanup()

# %% [markdown]
# ## Where to go from here
#
# - `docs/interop.md`: what each layout holds, what was compared with the original code, and how
#   closely.
# - `hs.to_foreign(model, "nanogpt")`: the way back.
# - The notebooks on collapse and on unfolding take this `model` as it is.
