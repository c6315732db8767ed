"""Training: data, tokenisers, settings, the trainer, checkpoints and evaluation."""

from __future__ import annotations

from .compare import Comparison, run_comparison
from .config import TrainConfig, build_config, load_config, load_settings
from .corpus import Corpus, builtin_corpus, text_file_corpus
from .data import TokenData, open_data, prepare
from .errors import MissingExtraError, NonFiniteError, RunError
from .evaluation import ReleasedLoss, evaluate, evaluate_all, evaluate_released
from .published import COLLECTIONS, Collection, prepare_collection
from .run import run_training
from .run_dir import LoadedRun, RunSummary, load_run, read_metrics
from .tokenizers import ByteTokenizer, CharTokenizer, GPT2Tokenizer, Tokenizer

__all__ = [
    "COLLECTIONS",
    "ByteTokenizer",
    "CharTokenizer",
    "Collection",
    "Comparison",
    "Corpus",
    "GPT2Tokenizer",
    "LoadedRun",
    "MissingExtraError",
    "NonFiniteError",
    "ReleasedLoss",
    "RunError",
    "RunSummary",
    "TokenData",
    "Tokenizer",
    "TrainConfig",
    "build_config",
    "builtin_corpus",
    "evaluate",
    "evaluate_all",
    "evaluate_released",
    "load_config",
    "load_run",
    "load_settings",
    "open_data",
    "prepare",
    "prepare_collection",
    "read_metrics",
    "run_comparison",
    "run_training",
    "text_file_corpus",
]
