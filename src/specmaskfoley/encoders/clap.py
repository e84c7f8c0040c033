"""CLAP in the prompt encoder's role: sounds and texts in one space (Wu et al. 2023, LAION-AI/CLAP, HTSAT-base).

The audio tower comes from the authors' package laion_clap, the text tower (RoBERTa) from transformers.

Shape letters: B waveforms, N samples, n texts, P prompt width (512).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.storage.files import read_json
from specmaskfoley.weights.official import OfficialNetwork, paper_packages

TOKENIZER_FILES = ("vocab.json", "merges.txt", "config.json")
"""What is read of roberta-base; its weights are part of CLAP's file."""

_MAX_TOKENS = 77
_HTSAT_WIDTH = 1024
_HTSAT = SimpleNamespace(
    model_name="base",
    sample_rate=48000,
    window_size=1024,
    hop_size=480,
    mel_bins=64,
    fmin=50,
    fmax=14000,
    class_num=527,
)
_PACKAGE = "_specmaskfoley_laion_clap_module"
# The second projections and temperatures of training, and RoBERTa's position numbers, which transformers saved up to
# version 4.30.
_LEFT_OUT = (
    "audio_transform.",
    "text_transform.",
    "logit_scale_a",
    "logit_scale_t",
    "text_branch.embeddings.position_ids",
)


class ClapEncoder(OfficialNetwork):
    """L2-normalised embeddings (n, P) of sounds and of texts; the cosine of two measures how well they fit.

    Downloads nothing: what upstream fetches from a hub comes from the folder `tokenizer`. Weights: the file
    music_speech_audioset_epoch_15_esc_89.98.pt, names without their `module.`.

    Args:
        tokenizer: folder with vocab.json, merges.txt and config.json of roberta-base.

    Raises:
        ValueError: the folder lacks a file or its files do not fit together, or a package is not installed.
    """

    ignored = _LEFT_OUT
    width = 512
    sample_rate = 48000
    num_samples = 480_000
    """N of the 10 s that the audio tower sees."""

    def __init__(self, tokenizer: str | Path) -> None:
        super().__init__()
        folder = Path(tokenizer)
        missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(
                f"{folder}: the tokenizer of roberta-base needs {', '.join(missing)} there; "
                "fetch it with `specmaskfoley weights fetch`"
            )
        with paper_packages("CLAP", "the packages laion-clap and transformers"):
            htsat = _htsat_module()
            transformers: Any = importlib.import_module("transformers")
        roberta = transformers.RobertaConfig(**read_json(folder / "config.json"))
        self.tokenizer = transformers.RobertaTokenizer.from_pretrained(str(folder), local_files_only=True)
        if len(self.tokenizer) != roberta.vocab_size:
            raise ValueError(
                f"{folder}: vocab.json has {len(self.tokenizer)} tokens, config.json {roberta.vocab_size}; "
                "take all files from roberta-base (`specmaskfoley weights fetch`)"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
            self.audio_branch: Any = htsat.create_htsat_model(_HTSAT)
        self.text_branch: nn.Module = transformers.RobertaModel(roberta)
        self.audio_projection = self._projection(_HTSAT_WIDTH)
        self.text_projection = self._projection(roberta.hidden_size)

    def embed_audio(self, waveform: Tensor) -> Tensor:
        """The first 10 s; what is shorter is repeated as often as it fits whole, then followed by zeros.

        Upstream takes a random 10 s of longer sounds, and rounds samples to 16 bits when it gets them as arrays.

        Args:
            waveform: (B, N) at 48 kHz, in -1..1.

        Returns:
            (B, P) float32.

        Raises:
            ValueError: N is 0.
        """
        image = self._mel_image(self._ten_seconds(waveform))
        features = self.audio_branch.forward_features(image)["embedding"]
        return F.normalize(self.audio_projection(features).float(), dim=-1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, P) float32; what exceeds 77 tokens is cut off."""
        device = self.text_projection[0].weight.device
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        ).to(device)
        pooled = self.text_branch(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def _projection(self, inputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, self.width), nn.ReLU(), nn.Linear(self.width, self.width))

    def _ten_seconds(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, num_samples)."""
        samples = waveform.shape[1]
        if samples == 0:
            raise ValueError("CLAP cannot embed a sound of no samples")
        whole = waveform[:, : self.num_samples].repeat(1, max(1, self.num_samples // samples))
        return F.pad(whole, (0, self.num_samples - whole.shape[1]))

    def _mel_image(self, waveform: Tensor) -> Tensor:
        """(B, num_samples) -> (B, 1, 256, 256): the log-mel, its time folded into four stripes of 64 bands."""
        tower = self.audio_branch
        # A logarithm of rounded magnitudes is no mel: float32 also under autocast.
        with torch.autocast(waveform.device.type, enabled=False):
            log_mel = tower.logmel_extractor(tower.spectrogram_extractor(waveform.float()))
            # The batch norm is one of bands, which come last here.
            return tower.reshape_wav2img(tower.bn0(log_mel.transpose(1, 3)).transpose(1, 3))  # type: ignore[no-any-return]


def _htsat_module() -> ModuleType:
    """laion_clap's clap_module/htsat.py, without the modules above it.

    Importing laion_clap fetches three tokenizers from a hub and puts the package's folder on sys.path. The file
    itself needs only its neighbours, so a package of our own stands in for its parents.
    """
    if _PACKAGE not in sys.modules:
        found = importlib.util.find_spec("laion_clap")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'laion_clap'", name="laion_clap")
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(folder) / "clap_module") for folder in found.submodule_search_locations]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.htsat")
