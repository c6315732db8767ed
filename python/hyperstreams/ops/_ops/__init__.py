"""Fused ops: one file per stem with its fakes, batching rules and differentiable form."""
