"""What became of every tensor of a foreign checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ForeignReport:
    """The account that ``load_foreign`` gives.

    source : the layout that was read.
    mapped : foreign name to the name (or names) here.
    transposed : foreign tensors whose axes or entries change order, and how.
    assumed : what the checkpoint does not say and the loader took for granted.
    dropped : foreign names (or a count of them) that have no place here.
    """

    source: str
    mapped: dict[str, str] = field(default_factory=dict)
    transposed: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.mapped)} tensors mapped"]
        for title in ("transposed", "assumed", "dropped"):
            entries = getattr(self, title)
            if entries:
                lines += [f"{title}:", *(f"  {entry}" for entry in entries)]
        return "\n".join(lines)
