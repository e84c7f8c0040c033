"""A tokenizer in roberta-base's files, small enough to be made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def byte_symbols() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(code) for code in (*printable, *range(256, 256 + len(others)))]


def write_tokenizer(folder: Path, **config: Any) -> Path:
    """roberta-base's files with the byte symbols, a few merges and a small network."""
    merges = [("Ġ", "d"), ("Ġd", "o"), ("Ġdo", "g"), ("a", "i"), ("ai", "n"), ("r", "ain"), ("R", "ain")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *byte_symbols(), *map("".join, merges), "<mask>"]
    roberta = {
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "vocab_size": len(tokens),
        "hidden_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
        "intermediate_size": 96,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-05,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "config.json").write_text(json.dumps(roberta | config))
    return folder
