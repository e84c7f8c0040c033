"""T5 in the prompt encoder's role: a vector for each token of a text (Raffel et al. 2020, T5-large, encoder alone).

The network comes from transformers, the tokenizer from its library `tokenizers`. AudioCraft conditions MAGNeT and
AudioGen on these vectors.

Shape letters: n texts, L tokens (`max_tokens`), P prompt width (1024).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specmaskfoley.weights.official import OfficialNetwork, paper_packages

TOKENIZER_FILE = "tokenizer.json"
T5_LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16, "vocab_size": 32128}
"""Of T5Config; the rest is as its defaults say."""

_EMPTY = [1]  # `</s>`


class T5Encoder(OfficialNetwork):
    """The last hidden states of a text's tokens, `</s>` included, and zeros behind them.

    Weights: the file model.safetensors of t5-large, of which the decoder is left out. It holds the embeddings of tokens
    once; here they have a second name.

    Args:
        tokenizer: folder with tokenizer.json of t5-large.
        max_tokens: L.
        sizes: fields of T5Config.

    Raises:
        ValueError: the folder lacks the file or it is another tokenizer's, or a package is not installed.
    """

    ignored = ("decoder.",)
    optional = ("encoder.embed_tokens.weight",)

    def __init__(self, tokenizer: str | Path, max_tokens: int, sizes: Mapping[str, int] = T5_LARGE) -> None:
        super().__init__()
        with paper_packages("T5", "the package transformers"):
            transformers: Any = importlib.import_module("transformers")
            tokenizers: Any = importlib.import_module("tokenizers")
        self.tokenizer = _read_tokenizer(tokenizers.Tokenizer, Path(tokenizer) / TOKENIZER_FILE, sizes["vocab_size"])
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(length=max_tokens)
        network = transformers.T5EncoderModel(transformers.T5Config(**sizes))
        self.shared: nn.Embedding = network.shared
        self.encoder: nn.Module = network.encoder

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, L, P) float32, also under autocast, as AudioCraft has it.

        The empty text gives zeros alone, which are MAGNeT's null condition. What exceeds L tokens is cut off, before
        `</s>`; AudioCraft cuts nothing.
        """
        device = self.shared.weight.device
        encoded = self.tokenizer.encode_batch(list(texts))
        tokens = torch.tensor([text.ids for text in encoded], device=device)
        seen = torch.tensor([text.attention_mask for text in encoded], device=device)
        with torch.autocast(device.type, enabled=False):
            hidden = self.encoder(input_ids=tokens, attention_mask=seen).last_hidden_state
        said = torch.tensor([text != "" for text in texts], device=device)
        return hidden * (seen * said[:, None])[..., None]  # type: ignore[no-any-return]


def _read_tokenizer(kind: Any, file: Path, most: int) -> Any:
    """
    Args:
        most: tokens that the network knows.
    """
    again = "fetch it with `specmaskfoley weights fetch`"
    if not file.is_file():
        raise ValueError(f"{file}: no such file, which T5 needs as its tokenizer; {again}")
    try:
        tokenizer = kind.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{file}: not readable as a tokenizer ({error}); delete it and {again}") from error
    if tokenizer.encode("").ids != _EMPTY or tokenizer.get_vocab_size() > most:
        raise ValueError(
            f"{file}: has {tokenizer.get_vocab_size()} tokens, and {tokenizer.encode('').ids} for an empty text; "
            f"expected at most {most}, and {_EMPTY}: not T5's tokenizer; delete it and {again}"
        )
    return tokenizer
