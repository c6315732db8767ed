"""What tests over all connections must ask of each: depth, and the options that it uses."""

from __future__ import annotations

from hyperstreams import nn as hnn


def depth(connection: str, n_layer: int) -> int:
    """``n_layer``, or the least above it at which the connection is what its name says."""
    while True:
        try:
            hnn.check_connection(connection, width=96, n_sites=2 * n_layer, n_streams=4)
        except ValueError as error:
            if "n_sites" not in str(error):
                raise
            n_layer += 1
        else:
            return n_layer


def used(connection: str, **options: object) -> dict[str, object]:
    """Those of the options ``expand``, ``reduce`` and ``designate`` that the connection uses."""
    uses = hnn.connection_uses(connection)
    return {name: value for name, value in options.items() if name in uses}
