"""A tiny model of the parts of profile magnet: tokens of samples, and prompts of words alone, by a T5 of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.official_files import t5, t5_tokenizer, write_lock
from helpers.small_t5 import SMALL
from helpers.untrained import shrink_waveform, write_untrained
from specmaskfoley.encoders.t5 import T5Encoder

_SIZES = {**SMALL, "d_model": 1024, "num_layers": 1}


class OneLayerT5(T5Encoder):
    """In the place of the official one; see `encoders.trained.PROMPT`."""

    def __init__(self, tokenizer: str | Path, max_tokens: int) -> None:
        super().__init__(tokenizer, max_tokens, _SIZES)


def write_worded(folder: Path) -> Path:
    """The folder of a model, to be read with `OneLayerT5`."""

    def change(raw: dict[str, Any]) -> None:
        shrink_waveform(raw)
        prompt = {"kind": "t5", "weights": "t5_large", "tokenizer": ["t5_large_tokenizer"], "max_tokens": 7}
        own = raw["profiles"]["mini_1d"]
        own["encoders"] |= {"prompt": prompt, "train_prompt": None}
        own["audio"]["sample_rate"] = 16000
        own["codec"] |= {"inputs": 1, "strides": [4, 8, 16], "weights": "encodec_16khz"}
        own |= {"train_codec": None, "vocoder": None}
        raw["weights"]["folder"] = str(folder / "weights")

    files = folder / "weights" / "t5-large"
    files.mkdir(parents=True)
    t5(files / "model.safetensors", sizes=_SIZES)
    t5_tokenizer(files / "tokenizer.json")
    write_lock(folder / "weights.lock.yaml")
    return write_untrained(folder, change)
