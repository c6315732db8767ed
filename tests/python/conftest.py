"""All tests run on the compiled ops, with one thread: a fallback to the reference is an error."""

from __future__ import annotations

import os

os.environ["HYPERSTREAMS_REQUIRE_FUSED"] = "1"

import torch

torch.set_num_threads(1)
