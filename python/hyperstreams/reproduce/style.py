"""How every figure looks: one font, one set of colours, the same colour for a stream everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..train.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STREAM_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
)
"""Okabe and Ito's colour-blind safe set, darkest first, and a brown; repeats beyond seven."""
STREAM_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RUN_COLOURS = ("#4D4D4D", "#B8860B", "#5B4FA2", "#1B9AAA", "#A23B72", "#6A994E")
RUN_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    "-",
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    "-.",
)
INK = "#222222"
REFERENCE = "#111111"
"""Colour of everything that was so at initialisation."""
FAINT = "#8A8A8A"
COLUMN_WIDTH = 7.2
"""Inches of a full-width figure."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "legend.handlelength": 2.0,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.6,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def require_matplotlib() -> Any:
    """matplotlib, or an error that names the extra."""
    return require("matplotlib", extra="plot", purpose="drawing figures")


@contextmanager
def house_style() -> Iterator[None]:
    """The package's rcParams inside the block; the user's own are back afterwards."""
    with require_matplotlib().rc_context(RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure that belongs to no global state: nothing to close, nothing to show."""
    require_matplotlib()
    figure = import_module("matplotlib.figure").Figure(
        figsize=(width, height), layout="constrained"
    )
    import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def stream_colour(stream: int) -> str:
    return STREAM_COLOURS[stream % len(STREAM_COLOURS)]


def stream_marker(stream: int) -> str:
    return STREAM_MARKERS[stream % len(STREAM_MARKERS)]


def site_axis(ax: Axes, names: Sequence[str], *, label: str = "site") -> None:
    """Sites along x: one tick each, thinned where the names would touch."""
    figure = ax.get_figure()
    assert figure is not None
    width = ax.get_position().width * figure.get_figure(root=True).get_size_inches()[0]
    room = max(int(width / 0.2), 2)
    every = -(-len(names) // room)
    places = list(range(0, len(names), every))
    ax.set_xticks(places, [names[k] for k in places])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_xlabel(label)
    ax.grid(visible=False, axis="x")


def grey_out(ax: Axes, row: int, note: str) -> None:
    """Shade one site whose value cannot matter, and say why."""
    ax.axvspan(row - 0.5, row + 0.5, color="#BBBBBB", alpha=0.45, lw=0, zorder=0)
    ax.text(
        row,
        0.98,
        note,
        transform=ax.get_xaxis_transform(),
        rotation=90,
        ha="center",
        va="top",
        fontsize=5.8,
        color="#555555",
    )


def initial_line(ax: Axes, values: Any, *, label: str = "at initialisation") -> None:
    """The value at initialisation over sites; of several streams the mean, in a min-max band."""
    places = range(len(values))
    if values.ndim == 2:
        low, high = values.min(axis=1), values.max(axis=1)
        ax.fill_between(places, low, high, color=REFERENCE, alpha=0.10, lw=0, zorder=1)
        values = values.mean(axis=1)
    ax.plot(places, values, color=REFERENCE, lw=1.0, ls=(0, (4, 2)), label=label, zorder=2)
