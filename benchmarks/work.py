"""What a call must do at least: bytes between memory and processor, floating-point operations.

The bytes are counted in units of traffic, one unit being ``tokens * width`` elements of the
streams' dtype: every input read once, every output written once, nothing in between. A fused op
that reads something twice is below its roofline for that reason. Coefficients and parameters are
counted as float32; a multiply-add is two operations.
"""

from __future__ import annotations

from dataclasses import dataclass

COEFFICIENT_BYTES = 4


@dataclass(frozen=True)
class Work:
    """Bytes and floating-point operations of one call; ``flops`` is None where nobody counted."""

    bytes: int
    flops: int | None = None

    def __add__(self, other: Work) -> Work:
        flops = None
        if self.flops is not None and other.flops is not None:
            flops = self.flops + other.flops
        return Work(self.bytes + other.bytes, flops)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """T tokens of n streams of C channels, ``element`` bytes each."""

    tokens: int
    n_streams: int
    width: int
    element: int

    def units(self, count: int) -> int:
        """Bytes of ``count`` units of traffic."""
        return count * self.tokens * self.width * self.element

    def coefficients(self, per_token: int) -> int:
        """Bytes of so many coefficients for each token."""
        return per_token * self.tokens * COEFFICIENT_BYTES

    def per_channel(self, count: int) -> int:
        """Operations, ``count`` for each channel of each token."""
        return count * self.tokens * self.width


def read(shape: Shape, *, backward: bool) -> Work:
    """Forward n + 1 units; backward, of x and h_pre, 2n + 1."""
    n = shape.n_streams
    forward = Work(shape.units(n + 1) + shape.coefficients(n), shape.per_channel(2 * n))
    if not backward:
        return forward
    return forward + Work(
        shape.units(2 * n + 1) + shape.coefficients(2 * n), shape.per_channel(3 * n)
    )


def mix_write(shape: Shape, *, backward: bool) -> Work:
    """Forward 2n + 1 units; backward, of everything, 3n + 2."""
    n = shape.n_streams
    coefficients = n * n + n
    forward = Work(
        shape.units(2 * n + 1) + shape.coefficients(coefficients),
        shape.per_channel(2 * n * n + 2 * n),
    )
    if not backward:
        return forward
    return forward + Work(
        shape.units(3 * n + 2) + shape.coefficients(2 * coefficients),
        shape.per_channel(4 * n * n + 4 * n),
    )


def project(shape: Shape, *, logits: int, backward: bool) -> Work:
    """Forward n units and phi; backward 2n units, phi and its gradient."""
    n = shape.n_streams
    phi = logits * n * shape.width * COEFFICIENT_BYTES
    forward = Work(
        shape.units(n) + shape.coefficients(logits + 1) + phi,
        shape.per_channel(2 * logits * n + 2 * n),
    )
    if not backward:
        return forward
    return forward + Work(
        shape.units(2 * n) + shape.coefficients(logits + 2) + 2 * phi,
        shape.per_channel(4 * logits * n + 2 * n),
    )


def coefficients(*, tokens: int, logits: int, outputs: int, backward: bool) -> Work:
    """Logits and inverse RMS to ``outputs`` coefficients per token; the map's operations vary."""
    values = logits + 1 + outputs
    if backward:
        values += outputs + 2 * (logits + 1)
    return Work(tokens * values * COEFFICIENT_BYTES)


def expand(shape: Shape, *, backward: bool) -> Work:
    """With a learned scale. Forward n + 1 units; backward n + 2."""
    n = shape.n_streams
    forward = Work(shape.units(n + 1), shape.per_channel(n))
    if not backward:
        return forward
    return forward + Work(shape.units(n + 2), shape.per_channel(4 * n))


def stream_stats(shape: Shape, *, backward: bool) -> Work:
    """n + 1 units, no backward; operations of the Gram matrix alone, by symmetry half of it."""
    if backward:
        raise ValueError("stream_stats: backward: expected False, as it has none, got True")
    n = shape.n_streams
    return Work(
        shape.units(n + 1) + shape.coefficients(n * n + 2 * n),
        shape.per_channel((n + 1) * (n + 2)),
    )


def boundary(shape: Shape, *, logits: int, backward: bool) -> Work:
    """Write, controller and read in one pass: forward 2n + 2 units, backward 3n + 3.

    At n = 4 these are 10 and 15. Operations that rebuild x' in backward are not counted.
    """
    return _site(shape, 2 * shape.n_streams + 2, 3 * shape.n_streams + 3, logits, backward)


def sublayer(shape: Shape, *, logits: int, backward: bool) -> Work:
    """Controller and read in one pass, and the write after the branch in another.

    Forward 3n + 2 units, backward 6n + 3: 14 and 27 at n = 4.
    """
    return _site(shape, 3 * shape.n_streams + 2, 6 * shape.n_streams + 3, logits, backward)


def _site(shape: Shape, forward: int, backward_units: int, logits: int, backward: bool) -> Work:
    n = shape.n_streams
    parts = [
        read(shape, backward=backward),
        mix_write(shape, backward=backward),
        project(shape, logits=logits, backward=backward),
    ]
    passes = 3 if backward else 1  # a parameter is read, read again, and its gradient written
    moved = shape.units(forward + (backward_units if backward else 0))
    moved += passes * (shape.coefficients(2 * (n * n + n) + n))
    moved += passes * logits * n * shape.width * COEFFICIENT_BYTES
    return Work(moved, sum(part.flops or 0 for part in parts))
