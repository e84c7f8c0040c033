"""The codec: official names and golden numbers at full size, shapes and properties at a small one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_rule import golden_tensor, golden_weights, relative_error, shared
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.config import Codec as CodecSettings
from specmaskfoley.models.codec import Codec, Discriminator, Quantizer, codebook_usage, nearest_code

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "specvqgan_keys.json").read_text(encoding="utf-8"))
OFFICIAL = CodecSettings(
    codebook_size=1024,
    code_width=256,
    stem=1,
    channels=128,
    channel_mults=(1, 1, 2, 2, 4),
    encoder_blocks=2,
    decoder_blocks=3,
    attention=True,
)
SMALL = CodecSettings(
    codebook_size=32,
    code_width=8,
    stem=4,
    channels=8,
    channel_mults=(1, 1, 2),
    encoder_blocks=1,
    decoder_blocks=1,
    attention=True,
)


@pytest.fixture(scope="module")
def official() -> Codec:
    with torch.device("meta"):
        codec = Codec(OFFICIAL)
    codec.load_state_dict(golden_weights(GOLDEN["keys"]), assign=True)
    return codec.eval()


@pytest.fixture
def small() -> Codec:
    torch.manual_seed(0)
    return Codec(SMALL).eval()


@pytest.mark.parametrize("entry", GOLDEN["rule_check"], ids=lambda entry: entry["key"])
def test_deterministic_weights_have_the_recorded_values(entry):
    values = golden_tensor(entry["key"], entry["shape"]).flatten()
    np.testing.assert_allclose(values[: len(entry["first"])], entry["first"], rtol=1e-5, atol=1e-7)
    assert float(values[-1]) == pytest.approx(entry["last"], rel=1e-5)


def test_names_and_shapes_are_the_official_checkpoints():
    with torch.device("meta"):
        codec = Codec(OFFICIAL)
    assert {key: list(value.shape) for key, value in codec.state_dict().items()} == GOLDEN["keys"]
    assert sum(p.numel() for p in codec.encoder.parameters()) == 29_295_872
    assert sum(p.numel() for p in codec.decoder.parameters()) == 42_447_489


@torch.inference_mode()
def test_encoder_meets_the_golden_latents_and_tokens(official):
    golden = np.load(shared("golden/specvqgan.npz"))
    mel = torch.rand(1, 1, 80, 848, generator=torch.Generator().manual_seed(21)) * 2 - 1
    coded = official.encode(mel)
    assert relative_error(coded.latents, golden["prequant"]) < 1e-4
    np.testing.assert_array_equal(coded.tokens.numpy(), golden["tokens"])


@torch.inference_mode()
def test_encoder_meets_the_golden_tokens_of_a_real_mel(official):
    golden = np.load(shared("golden/specvqgan.npz"))
    mel = np.load(shared("vggsound_clips/-1pRmoJIGQc_10000_20000_mel.npy"))
    coded = official.encode(2 * torch.from_numpy(mel[:, 6:854]).float()[None, None] - 1)
    assert relative_error(coded.latents, golden["real_prequant"]) < 1e-4
    np.testing.assert_array_equal(coded.tokens.numpy(), golden["real_tokens"])


@torch.inference_mode()
def test_decoder_meets_the_golden_mel(official):
    golden = np.load(shared("golden/specvqgan.npz"))
    tokens = torch.randint(0, 1024, (1, 5, 53), generator=torch.Generator().manual_seed(22))
    assert relative_error(official.decode(tokens), golden["decoded_from_tokens"]) < 1e-4


@pytest.mark.parametrize(("mels", "frames"), [(80, 64), (32, 16), (16, 208)])
@torch.inference_mode()
def test_sixteen_by_sixteen_mel_pixels_are_a_token(small, mels, frames):
    coded = small.encode(torch.randn(2, 1, mels, frames))
    assert coded.tokens.shape == (2, mels // 16, frames // 16)
    assert coded.tokens.dtype == torch.int64
    assert coded.latents.shape == coded.codes.shape == (2, 8, mels // 16, frames // 16)
    assert small.decode(coded.tokens).shape == (2, 1, mels, frames)


@torch.inference_mode()
def test_tokens_stand_for_their_codes(small):
    coded = small.encode(torch.randn(2, 1, 32, 48))
    assert torch.equal(coded.codes, small.quantize.lookup(coded.tokens))
    assert torch.equal(small.decode(coded.tokens), small.decode_latents(coded.codes))
    first = coded.tokens[1, 1, 2]
    assert torch.equal(coded.codes[1, :, 1, 2], small.quantize.embedding.weight[first])


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


def test_codebook_usage_of_known_histograms():
    assert codebook_usage(torch.zeros(3, 4, dtype=torch.int64), 8) == (1 / 8, pytest.approx(1.0))
    assert codebook_usage(torch.arange(8), 8) == (1.0, pytest.approx(8.0))
    assert codebook_usage(torch.tensor([0, 0, 5, 5]), 8) == (0.25, pytest.approx(2.0))
    share, perplexity = codebook_usage(torch.tensor([0, 0, 0, 1]), 8)
    assert share == 0.25
    assert perplexity == pytest.approx(4 / 27**0.25)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60))
def test_perplexity_lies_between_one_and_the_codes_used(tokens):
    share, perplexity = codebook_usage(torch.tensor(tokens), 16)
    assert share == len(set(tokens)) / 16
    assert 1 - 1e-9 <= perplexity <= len(set(tokens)) + 1e-9


def test_discriminator_judges_patches():
    judged = Discriminator()(torch.randn(2, 1, 80, 64))
    assert judged.shape == (2, 1, 8, 6)
