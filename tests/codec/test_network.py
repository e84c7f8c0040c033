"""The codec: shapes and properties at a small size; its golden numbers are in test_golden.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.official_files import SPECVQGAN
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.codec.codebooks import codebook_usage, nearest_code
from specmaskfoley.codec.discriminator import Discriminator
from specmaskfoley.codec.specvqgan.network import Quantizer, SpecVQGAN
from specmaskfoley.settings import SpecVQGAN as CodecSettings

SMALL = CodecSettings(
    kind="specvqgan",
    codebook_size=32,
    code_width=8,
    stem=4,
    channels=8,
    channel_mults=(1, 1, 2),
    encoder_blocks=1,
    decoder_blocks=1,
    attention=True,
)


@pytest.fixture
def small() -> SpecVQGAN:
    torch.manual_seed(0)
    return SpecVQGAN(SMALL).eval()


def test_size_is_the_official_one():
    with torch.device("meta"):
        codec = SpecVQGAN(SPECVQGAN)
    assert len(codec.state_dict()) == 343
    assert sum(p.numel() for p in codec.encoder.parameters()) == 29_295_872
    assert sum(p.numel() for p in codec.decoder.parameters()) == 42_447_489


def test_official_weights_come_with_a_loss_that_is_passed_over(small):
    tensors = {name: torch.full_like(value, 0.5) for name, value in small.state_dict().items()}
    small.load_official(tensors | {"loss.discriminator.main.0.weight": torch.zeros(3)}, "epoch_39.ckpt")
    assert all(torch.equal(value, tensors[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(
    ("drop", "add", "named"),
    [
        ("quantize.embedding.weight", None, r"1 missing \(quantize.embedding.weight\)"),
        (None, "encoder.extra.weight", r"1 unknown \(encoder.extra.weight\)"),
        ("encoder.conv_in.bias", "lossy.bias", "1 missing .* 1 unknown"),
        (None, "encoder.conv_in.bias", "1 of another shape"),
    ],
)
def test_other_weights_are_refused_whole(small, drop, add, named):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    tensors = {name: value + 1 for name, value in before.items() if name != drop}
    if add is not None:
        tensors[add] = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match=named):
        small.load_official(tensors, "epoch_39.ckpt")
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(("mels", "frames"), [(80, 64), (32, 16), (16, 208)])
@torch.inference_mode()
def test_sixteen_by_sixteen_mel_pixels_are_a_token(small, mels, frames):
    mel = torch.randn(2, 1, mels, frames)
    latents, tokens = small.encode_latents(mel), small.tokens(mel)
    assert tokens.shape == (2, mels // 16, frames // 16)
    assert tokens.dtype == torch.int64
    assert latents.shape == small.lookup(tokens).shape == (2, 8, mels // 16, frames // 16)
    assert small.decode(tokens).shape == mel.shape
    assert small.example(2, mels // 16, frames // 16).shape == mel.shape


@torch.inference_mode()
def test_tokens_stand_for_their_codes(small):
    latents = small.encode_latents(torch.randn(2, 1, 32, 48))
    tokens, (before, after) = small.assign(latents)
    codes = small.lookup(tokens)
    assert torch.equal(small.decode(tokens), small.decode_latents(codes))
    assert torch.equal(codes[1, :, 1, 2], small.quantize.embedding.weight[tokens[1, 1, 2]])
    assert torch.equal(before, latents)
    assert torch.equal(after, latents - codes)


@torch.inference_mode()
def test_a_code_vector_is_its_own_nearest_code(small):
    tokens = torch.randint(SMALL.codebook_size, (2, 3, 4))
    assert torch.equal(small.quantize(small.quantize.lookup(tokens)), tokens)


integers = st.integers(-3, 3)


@given(st.data(), st.integers(1, 4))
def test_nearest_code_is_the_first_of_the_nearest(data, width):
    """Small whole numbers are exact in float32, and bring many ties."""
    rows = st.lists(st.lists(integers, min_size=width, max_size=width), min_size=1, max_size=12)
    vectors, codebook = np.array(data.draw(rows)), np.array(data.draw(rows))
    distance = ((vectors[:, None] - codebook[None]) ** 2).sum(-1)
    found = nearest_code(torch.from_numpy(vectors), torch.from_numpy(codebook))
    np.testing.assert_array_equal(found.numpy(), distance.argmin(1))


def test_nearest_code_equals_brute_force_on_real_numbers():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(500, 16, generator=generator)
    codebook = torch.randn(64, 16, generator=generator)
    distance = (vectors[:, None].double() - codebook[None].double()).square().sum(-1)
    assert torch.equal(nearest_code(vectors, codebook), distance.argmin(1))


def test_quantiser_reads_half_precision_latents_in_float32():
    quantize = Quantizer(64, 16)
    latents = torch.randn(1, 16, 2, 3).bfloat16()
    assert torch.equal(quantize(latents), quantize(latents.float()))


def usage(tokens: torch.Tensor, size: int) -> tuple[float, ...]:
    return tuple(map(float, codebook_usage(tokens, size)))


def test_codebook_usage_of_known_histograms():
    assert usage(torch.zeros(3, 4, dtype=torch.int64), 8) == (1 / 8, pytest.approx(1.0))
    assert usage(torch.arange(8), 8) == (1.0, pytest.approx(8.0))
    assert usage(torch.tensor([0, 0, 5, 5]), 8) == (0.25, pytest.approx(2.0))
    share, perplexity = usage(torch.tensor([0, 0, 0, 1]), 8)
    assert share == 0.25
    assert perplexity == pytest.approx(4 / 27**0.25)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60))
def test_perplexity_lies_between_one_and_the_codes_used(tokens):
    share, perplexity = usage(torch.tensor(tokens), 16)
    assert share == len(set(tokens)) / 16
    assert 1 - 1e-9 <= perplexity <= len(set(tokens)) + 1e-9


def test_discriminator_judges_patches():
    judged = Discriminator()(torch.randn(2, 1, 80, 64))
    assert judged.shape == (2, 1, 8, 6)
