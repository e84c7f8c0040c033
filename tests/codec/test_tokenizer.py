"""Tokens to sound in half precision on processors that have it: as good as the same, and float32 elsewhere."""

from __future__ import annotations

import pytest
import torch
from helpers import ROOT
from torch import Tensor

from specmaskfoley import device
from specmaskfoley.codec import tokenizer
from specmaskfoley.codec.tokenizer import Tokenizer
from specmaskfoley.media.mel import build_mel, decibels
from specmaskfoley.settings import NeuralVocoder, Params

CPU = torch.device("cpu")
PARAMS = Params.load(ROOT / "params.yaml", "mini")


def made(precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mel and sound of the same tokens by the same untrained networks, and the tokens of a sound."""
    run, vocoder = PARAMS.run.model_copy(update={"precision": precision}), NeuralVocoder(kind="hifigan", weights="any")
    torch.manual_seed(0)
    own = Tokenizer(PARAMS.model_copy(update={"run": run, "vocoder": vocoder}), CPU, trained=False)
    tokens = torch.randint(PARAMS.codec.codebook_size, (2, PARAMS.audio.token_rows, 4))
    sound = torch.randn(1, 4 * 16 * PARAMS.audio.hop_length, generator=torch.Generator().manual_seed(1))
    return own.decode_mel(tokens), own.decode(tokens), own.encode(sound)


@pytest.mark.skipif(not device.fast_bfloat16(CPU), reason="this processor has no bfloat16 instructions")
def test_bfloat16_comes_close_and_leaves_encoding_alone():
    (mel, sound, tokens), (half_mel, half_sound, half_tokens) = made("float32"), made("auto")
    recipe = build_mel(PARAMS.audio)
    assert half_mel.dtype == half_sound.dtype == torch.float32
    assert 0 < (decibels(recipe, mel) - decibels(recipe, half_mel)).abs().mean() < 0.5
    assert 0 < (recipe(sound) - recipe(half_sound)).abs().mean() < 0.1  # of natural logarithms
    assert torch.equal(tokens, half_tokens)


def test_without_the_instructions_all_is_float32(monkeypatch):
    expected = made("float32")
    for module in (device, tokenizer):
        monkeypatch.setattr(module, "fast_bfloat16", lambda _: False)
    for found, own in zip(made("auto"), expected, strict=True):
        assert torch.equal(found, own)
