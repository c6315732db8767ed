"""Everything that has a name, as tables from the registries: ``hyperstreams list`` and the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .diagnostics import QUANTITIES
from .diagnostics.live.quantities import needs_streams
from .diagnostics.metrics.collapse import QUESTIONS
from .diagnostics.registry import METRICS
from .init import DESIGNATION_SCHEMES, EXPANSION_SCHEMES
from .mixers import DIALECTS, MIXERS, Mixer
from .models import DECAY_POLICIES, GPTConfig
from .models.size import operations_table, parameter_table
from .nn import CONNECTIONS, ConnectionConfig, ConnectionFamily
from .ops import coefficients_are_fused

N_STREAMS, WIDTH = 4, 1024
SITES = 48
"""Connections that differ between sites are averaged over this many: those of 24 blocks."""


@dataclass(frozen=True)
class Table:
    """A title, a line about the columns, column names, and rows of text."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def text(self) -> str:
        """Aligned columns for a terminal, the last one ragged."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def markdown(self) -> str:
        """A section with the table."""
        rule = ("---",) * len(self.columns)
        lines = [f"| {' | '.join(line)} |" for line in (self.columns, rule)]
        lines += [
            f"| {' | '.join([f'`{name}`', *(cell.replace('|', chr(92) + '|') for cell in rest)])} |"
            for name, *rest in self.rows
        ]
        return "\n".join([f"## {self.title}", "", self.about, "", *lines, ""])


def connections(n_streams: int = N_STREAMS, width: int = WIDTH) -> Table:
    """Every connection with its parameters, operations and kernels."""
    rows = []
    for name, connection in CONNECTIONS.items():
        try:
            counts = _site_costs(name, n_streams, width)
        except ValueError:
            counts = ("-", "-")
        end = "-"
        if isinstance(connection, ConnectionConfig):
            end = f"{connection.reduce}, norm {connection.final_norm.removesuffix('_reduce')}"
        rows.append((name, *counts, _fused(connection, n_streams), end, connection.paper))
    return Table(
        "Connections",
        f"`connection=`. Parameters and floating-point operations per token of one site (attention "
        f"or MLP) for n = {n_streams} streams of width C = {width}, the branch not counted, a mean "
        f"over a model of {SITES} sites; - where the connection does not exist for that n, or is "
        "your own and does not count its operations. Kernels: which ops are fused; the rest is "
        "PyTorch. Ends: reduction and final norm of the models published with it, which "
        '`reduce="published"` and `final_norm="published"` take.',
        ("name", "parameters", "operations", "kernels", "ends", "what, source"),
        rows,
    )


def _site_costs(name: str, n_streams: int, width: int) -> tuple[str, str]:
    config = GPTConfig(
        connection=name,
        n_streams=n_streams,
        width=width,
        n_head=1,
        n_layer=SITES // 2,
        vocab_size=1,
        block_size=1,
    )
    parameters = parameter_table(config)["connections"] / SITES
    try:
        operations = f"{operations_table(config)['connections'] // SITES:,}"
    except ValueError:
        operations = "-"
    return f"{parameters:,.{1 if 0 < parameters < 1 else 0}f}", operations


def _fused(connection: ConnectionConfig | ConnectionFamily, n_streams: int) -> str:
    if isinstance(connection, ConnectionFamily):
        return ", ".join(connection.fused_ops) or "-"
    try:
        connection.check(n_streams)
    except ValueError:
        return "-"
    fused = coefficients_are_fused(
        connection.mixer,
        n_streams,
        connection.read_activation,
        connection.write_activation,
        connection.mix_activation,
        connection.norm == "per_stream",
    )
    return "all" if fused else "all but coefficients"


def mixers(n_streams: int = N_STREAMS) -> Table:
    """Every mixer with its logits, invariants and map."""

    def row(name: str, mixer: Mixer) -> tuple[str, ...]:
        try:
            mixer.check(n_streams)
        except ValueError:
            counts = ("-", "-")
        else:
            count, static = mixer.logit_count(n_streams), mixer.static_logit_count(n_streams)
            text = f"{count - static} + {static} static" if static else str(count)
            counts = (text, mixer.fused_map_for(n_streams) or "PyTorch")
        invariants = ", ".join(sorted(mixer.stated_invariants())) or "none"
        return (name, *counts, invariants.replace("_", " "), mixer.paper)

    return Table(
        "Mixers",
        f"Maps from logits to `h_res`: logits per token and kernel map for n = {n_streams}, and "
        "what holds for every `h_res`.",
        ("name", "logits", "map", "invariants", "source"),
        [row(name, mixer()) for name, mixer in MIXERS.items()],
    )


def dialects() -> Table:
    """Sinkhorn as other code bases write it."""

    def settings(mixer: Mixer) -> str:
        return repr(mixer).removeprefix("Sinkhorn(").removesuffix(")")

    return Table(
        "Dialects",
        "Settings of the mixer `sinkhorn` with which public code bases compute mHC's `h_res`.",
        ("name", "what", "settings"),
        [(name, dialect.text, settings(dialect.mixer)) for name, dialect in DIALECTS.items()],
    )


def inits() -> Table:
    """What breaks the symmetry between streams, and how else a model can start."""
    starts = {
        "designate=random": "each site favours a stream drawn from the generator",
        "designate=fixed": "each site favours stream 0",
        "designate=round_robin": "site k favours stream k mod n (2409.19606)",
        "designate=none": "no stream is favoured: the symmetric model",
    }
    assert tuple(key.partition("=")[2] for key in starts) == DESIGNATION_SCHEMES
    rows = [(f"expand={name}", scheme.summary) for name, scheme in EXPANSION_SCHEMES.items()]
    rows += list(starts.items())
    rows += [
        (
            "start=residual",
            "coefficients that compute the plain residual network, up to "
            "rounding and about 1e-6 per site in dialects with eps in their divisors",
        ),
        ("controller_std=S", "controller weights phi normal of deviation S, not their published 0"),
        ("output_std_factor=F", "branch outputs' deviation times F; HC scales by sqrt(n)"),
    ]
    rows += [
        (f"connection_policy={name}", f"weight decay of connection parameters: {policy.summary}")
        for name, policy in DECAY_POLICIES.items()
    ]
    return Table(
        "Initial values and decay",
        "Settings of `GPTConfig` and `hyperstreams train`, as `--name value` or in a TOML file; "
        "see `hyperstreams.init`.",
        ("setting", "what"),
        rows,
    )


def markdown() -> str:
    """The docs page: all tables."""
    head = (
        "# Connections, mixers, dialects, initial values\n\n"
        "Made by `hyperstreams list --markdown` from the registries; a test compares.\n"
    )
    tables = (connections(), mixers(), dialects(), inits())
    return "\n".join([head, *(table.markdown() for table in tables)])


def metrics() -> Table:
    """Every diagnostic with the function that computes it and its formula; the rest is in docs."""
    return Table(
        "Metrics",
        "Functions below `hyperstreams.diagnostics`. Invariance under a permutation of the "
        "streams: inv, the number stays; eqv, the vector is permuted; then what else leaves it. "
        "Initial values, nulls and sources: docs/diagnostics.md.",
        ("id", "metric", "function", "invariance", "formula"),
        [(m.id, m.name, m.functions[0], m.invariance, m.formula) for m in METRICS],
    )


def metrics_markdown() -> str:
    """The docs page of the diagnostics."""
    columns = ("metric", "functions", "formula", "invariance", "initial", "null", "source")
    cells = [
        (
            f"{m.id} {m.name}",
            ", ".join(f"`{path}`" for path in m.functions),
            f"`{m.formula}`",
            m.invariance,
            m.initial,
            m.null,
            m.source,
        )
        for m in METRICS
    ]
    rows = _markdown_rows([columns, ("---",) * len(columns), *cells])
    kinds = [f"- *{kind.capitalize()}*: {question}" for kind, question in QUESTIONS.items()]
    parts = [DIAGNOSTICS_HEAD, *kinds, "", DIAGNOSTICS_TABLE, "", *rows, ""]
    return "\n".join([*parts, QUANTITIES_HEAD, *_quantity_rows(), ""])


def _quantity_rows() -> list[str]:
    columns = ("quantity", "axes", "definition", "needs")
    cells = [
        (
            f"`{q.name}`",
            q.axes.replace("site", q.rows),
            q.definition,
            "streams" if needs_streams(q.name) else "coefficients",
        )
        for q in QUANTITIES.values()
    ]
    return _markdown_rows([columns, ("---",) * len(columns), *cells])


def _markdown_rows(lines: Sequence[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]


DIAGNOSTICS_HEAD = """\
# Diagnostics

Made by `hyperstreams list metrics --markdown` from the registry; a test compares.

One token's state is n streams `x_i` of width C. Site k reads `u = sum_i p[i] x_i`, its branch gives
`y`, and the streams become `x_j' = sum_i R[j, i] x_i + q[j] y`: `p` is `h_pre`, `q` is `h_post`,
`R` is `h_res[destination, source]`. `G` is the matrix of inner products of the streams, `J` all
ones, K the number of sites, T of tokens.

```python
from hyperstreams.diagnostics import collapse_report, composite, ledger, metrics, trace

t = trace(model, tokens, targets)                      # every site, token by token
metrics.mean_share(t.h_pre[3])                         # who site 3 reads from
composite.contraction(composite.composites(t.h_res))   # what is left of differences
c = ledger.contributions(t.h_pre, ledger.ledger(t.h_res, t.h_post))
report = collapse_report(t, initial=trace(untrained, tokens))
```

`trace` runs the model's own forward. The functions take its tensors (sites first) or any others of
those shapes, and torch is all that they need. Quantities of whole corpora come from `capture`,
those of a training run from `Probe`.

## Four kinds of collapse

Four failures share one name, and each is invisible to the measures of the others: mixers that
average everything have perfectly balanced shares. `collapse_report` gives four entries, each value
beside its initial value, its null and its value at complete collapse, and no sum.
"""

DIAGNOSTICS_TABLE = """\
A number without its initial value and null cannot tell "collapsed by training" from "initialised
that way". Both are in the table where they exist; `initial_coefficients(model)` gives the
coefficients that a trained model started from.

## Interventions

Metrics say where signal flows, interventions what it is needed for. Both patch the model's own
forward; `batches` are pairs of tokens and targets.

```python
from hyperstreams.diagnostics import Ablate, Replace, ablation_matrix, collapse_streams, effects

late = Replace("mixer", "identity", "late")
effects(model, {"no s2": Ablate([2], "L1a:"), "late": late}, batches).mean("delta_loss")
ablation_matrix(model, batches, subsets="all").mean()   # KL in nats per token, streams x state
collapse_streams(model, batches).added_loss             # m = 1 ... n streams instead of n
```

`hs.intervene` is the context manager below them: live or frozen routing, ablation by zero, mean,
another token or another stream, rescue from a clean trace, replaced mixers, reads and writes.
`collapse_streams` fixes all coefficients at their token mean, projects every state to its m leading
directions (balanced truncation, without training), and beside it keeps the m streams that are
written to most. `hyperstreams figure interventions` draws all of it for finished runs.

## Metrics

Paths are below `hyperstreams.diagnostics`, the first computes the metric; shapes, options
(`definition=`, `average=`, `kind=`) and sanity properties are in the docstrings. Invariance under a
permutation of the streams: inv, the number stays; eqv, the vector is permuted; then what else
leaves it."""

QUANTITIES_HEAD = """\
## Named quantities

`quantity(name, c)` of a capture or of a sample of a probe, which `Probe(what=...)` takes by the
same names. All are made from statistics over tokens that the model hands out with its outputs
(`ops.stream_stats`). Each row is a site, with the coefficients used there, or a state: before each
site, then at the readout. What needs the coefficients alone costs no pass over the streams.

```python
from hyperstreams.diagnostics import Probe, capture, quantity

quantity("read_variance", capture(model, batches))     # [sites, n]: do reads depend on the token?
with Probe(model, every=200, what=("read_variance", "write_max")) as probe:
    model(tokens, targets)
    probe.scalars(0)                                   # {"read_variance/L0a/s0": ..., ...}
quantity("mixer_max", probe.samples[0])                # [sites, n, n]
```
"""
