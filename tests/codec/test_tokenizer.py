"""Sound to tokens and back: by way of a mel or not, and in half precision as good as in float32."""

from __future__ import annotations

import pytest
import torch
from helpers import ROOT
from torch import Tensor

from specmaskfoley import device
from specmaskfoley.codec import mel
from specmaskfoley.codec.encodec.network import EncodecNetwork
from specmaskfoley.codec.trained import load_tokenizer
from specmaskfoley.codec.wave import WaveTokenizer
from specmaskfoley.media.mel import build_mel, decibels
from specmaskfoley.settings import Encodec, NeuralVocoder, Params

CPU = torch.device("cpu")
PARAMS = Params.load(ROOT / "params.yaml", "mini")


def made(precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mel and sound of the same tokens by the same untrained networks, and the tokens of a sound."""
    run, vocoder = PARAMS.run.model_copy(update={"precision": precision}), NeuralVocoder(kind="hifigan", weights="any")
    torch.manual_seed(0)
    own = load_tokenizer(PARAMS.model_copy(update={"run": run, "vocoder": vocoder}), CPU, trained=False)
    tokens = torch.randint(PARAMS.codec.codebook_size, (2, PARAMS.grid.rows, 4))
    sound = torch.randn(1, 4 * 16 * PARAMS.audio.hop_length, generator=torch.Generator().manual_seed(1))
    return own.frames(tokens), own.decode(tokens), own.encode(sound)


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
    for module in (device, mel):
        monkeypatch.setattr(module, "fast_bfloat16", lambda _: False)
    for found, own in zip(made("auto"), expected, strict=True):
        assert torch.equal(found, own)


def test_one_codebook_after_the_other_may_code_a_mel():
    params = Params.load(ROOT / "params.yaml", "mini_1d")
    own = load_tokenizer(params, CPU, trained=False)
    columns = 8
    sound = 0.1 * torch.randn(2, columns * params.grid.step, generator=torch.Generator().manual_seed(1))
    tokens = own.encode(sound)
    assert tokens.shape == (2, params.grid.rows, columns)
    assert own.frames_per_column == 2
    frames = own.frames(tokens)
    assert frames.shape == (2, 80, 2 * columns)
    assert own.decode(tokens).shape == sound.shape


@torch.inference_mode()
def test_tokens_of_samples_become_samples_by_way_of_latents():
    torch.manual_seed(0)
    sizes = {"codebook_size": 16, "code_width": 6, "channels": 4, "strides": (3, 8), "lstm_layers": 0}
    network = EncodecNetwork(Encodec(kind="encodec", inputs=1, codebooks=3, **sizes)).eval()
    own, wave = WaveTokenizer(network, CPU), torch.randn(2, 5 * 24)
    tokens = own.encode(wave)
    assert torch.equal(tokens, network.tokens(wave))
    assert own.frames(tokens).shape == (2, 6, 5 * own.frames_per_column)
    plain = network.decode(tokens)
    loudest = plain.abs().amax(1, keepdim=True)
    torch.testing.assert_close(own.decode(tokens), plain / (loudest / 0.98).clamp(min=1.0))
