"""A codec that is trained in a second, and settings for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from specmaskfoley.settings import Codec as CodecSettings
from specmaskfoley.settings import TrainCodec, Training
from specmaskfoley.training.batches import InMemory

CODEC = CodecSettings(
    codebook_size=12,
    code_width=6,
    stem=8,
    channels=8,
    channel_mults=(1, 2),
    encoder_blocks=1,
    decoder_blocks=1,
    attention=False,
)
WHOLE = 4
"""Columns of tokens of a whole clip."""


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
        "crop_columns": WHOLE,
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
