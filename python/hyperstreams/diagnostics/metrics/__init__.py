"""The field's measures as pure functions of plain tensors: torch alone, no model, no state.

Shares, effective streams and mixers stand in :mod:`.usage` and are named here; every other file is
one subject (``composite``, ``ledger``, ``geometry``, ...), and ``collapse`` sets the four kinds of
collapse side by side.
"""

from .usage import (
    Average,
    EffectiveKind,
    dominance,
    dominance_gap,
    effective_streams,
    entropy,
    identity_distance,
    mean_share,
    off_diagonal_by_destination,
    off_diagonal_mass,
    permutation_distance,
    persistence,
    persistence_null,
    read_covariance_share,
    read_signal_share,
    relative_update,
    share,
    site_information,
    switch_rate,
    token_variation,
    write_signal_share,
)

__all__ = [
    "Average",
    "EffectiveKind",
    "dominance",
    "dominance_gap",
    "effective_streams",
    "entropy",
    "identity_distance",
    "mean_share",
    "off_diagonal_by_destination",
    "off_diagonal_mass",
    "permutation_distance",
    "persistence",
    "persistence_null",
    "read_covariance_share",
    "read_signal_share",
    "relative_update",
    "share",
    "site_information",
    "switch_rate",
    "token_variation",
    "write_signal_share",
]
