"""Sparse crosscoders on stream states: model, training, shares, quality, controls, export."""

from .config import CrosscoderConfig
from .controls import latent_scaling, replicate_streams, shuffle_streams, strongest_elsewhere
from .ledger_shares import ledger_profile
from .losses import auxiliary_loss, decoder_weight, reconstruction_loss, weighted_l1
from .model import Crosscoder
from .quality import Quality, decoder_cosine, evaluate, max_cosine
from .saelens import export_saelens
from .shares import (
    activation_mass,
    assign,
    assignment_sweep,
    layer_stream_share,
    leading_stream_counts,
    stream_share,
)
from .sites import Sites
from .source import activation_batches, hook_points, read_states, shuffled
from .splice import reconstruct, splice_losses
from .stability import match_latents, shared_fraction
from .storage import load_crosscoder, load_latents, load_record, save_crosscoder
from .training import CrosscoderTrainer, train_crosscoder

__all__ = [
    "Crosscoder",
    "CrosscoderConfig",
    "CrosscoderTrainer",
    "Quality",
    "Sites",
    "activation_batches",
    "activation_mass",
    "assign",
    "assignment_sweep",
    "auxiliary_loss",
    "decoder_cosine",
    "decoder_weight",
    "evaluate",
    "export_saelens",
    "hook_points",
    "latent_scaling",
    "layer_stream_share",
    "leading_stream_counts",
    "ledger_profile",
    "load_crosscoder",
    "load_latents",
    "load_record",
    "match_latents",
    "max_cosine",
    "read_states",
    "reconstruct",
    "reconstruction_loss",
    "replicate_streams",
    "save_crosscoder",
    "shared_fraction",
    "shuffle_streams",
    "shuffled",
    "splice_losses",
    "stream_share",
    "strongest_elsewhere",
    "train_crosscoder",
    "weighted_l1",
]
