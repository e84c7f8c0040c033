"""Codecs of both kinds that are trained in a second, and settings for that."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from specmaskfoley.codec.encodec.network import EncodecNetwork
from specmaskfoley.codec.role import CodecNetwork
from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.settings import Encodec, TrainCodec, Training
from specmaskfoley.settings import SpecVQGAN as CodecSettings
from specmaskfoley.training.batches import InMemory

CODEC = CodecSettings(
    kind="specvqgan",
    codebook_size=12,
    code_width=6,
    stem=8,
    channels=8,
    channel_mults=(1, 2),
    encoder_blocks=1,
    decoder_blocks=1,
    attention=False,
)
MELS, FRAMES = 32, 64
ENCODEC = Encodec(
    kind="encodec",
    inputs=MELS,
    codebooks=3,
    codebook_size=12,
    code_width=6,
    channels=8,
    strides=(2, 2),
    lstm_layers=0,
)
KINDS = ("specvqgan", "encodec")
COLUMN = {"specvqgan": 16, "encodec": 4}
"""Mel frames of a column of tokens."""


def small_codec(kind: str) -> CodecNetwork:
    return EncodecNetwork(ENCODEC) if kind == "encodec" else SpecVQGAN(CODEC)


def train_codec(steps: int = 8, **changes: Any) -> TrainCodec:
    optim = Training(
        steps=steps,
        batch_size=4,
        base_learning_rate=0.2,
        warmup_steps=2,
        weight_decay=0.0,
        grad_clip=1.0,
        checkpoint_every=3,
        validate_every=4,
    )
    settings = {
        "crop_columns": FRAMES,  # of whole clips
        "quantize_after": 0,
        "commitment_weight": 0.25,
        "squared_weight": 1.0,
        "adversarial_weight": 0.0,
        "adversarial_after": 0,
        "codebook_decay": 0.9,
        "dead_code_threshold": 0.0,
    }
    return TrainCodec(optim=optim, **(settings | changes))


def rows(mels: Tensor) -> InMemory:
    return InMemory([f"clip{row}" for row in range(len(mels))], mel=mels.numpy())
