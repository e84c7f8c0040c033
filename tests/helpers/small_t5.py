"""A T5 of the official architecture, small enough to be made here."""

from __future__ import annotations

from pathlib import Path

from helpers.official_files import t5, t5_tokenizer
from specmaskfoley.encoders.t5 import T5Encoder

SMALL = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 48}


class SmallT5(T5Encoder):
    """In the place of the official one; see `encoders.trained.PROMPT`."""

    def __init__(self, tokenizer: str | Path, max_tokens: int) -> None:
        super().__init__(tokenizer, max_tokens, SMALL)


def write_t5(folder: Path) -> Path:
    """The files of the lock's entries t5_large and t5_large_tokenizer, of that size."""
    folder.mkdir(parents=True, exist_ok=True)
    t5(folder / "model.safetensors", sizes=SMALL)
    t5_tokenizer(folder / "tokenizer.json")
    return folder
