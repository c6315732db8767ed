"""Other code bases: their checkpoints in and out, and the call shapes of hyper-connections."""

from .foreign import FOREIGN, load_foreign, to_foreign
from .report import ForeignReport

__all__ = ["FOREIGN", "ForeignReport", "load_foreign", "to_foreign"]
