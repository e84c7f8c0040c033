"""EnCodec at a small size, of samples and of a mel; its golden numbers are in test_golden_encodec.py, and how it learns
is in test_objective.py.

Shape letters: B batch, S samples, T columns, C code width, F codebooks, M mel bands, L mel frames.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from specmaskfoley.codec.encodec.network import EncodecNetwork
from specmaskfoley.settings import Encodec

SMALL = Encodec(
    kind="encodec",
    inputs=1,
    codebooks=3,
    codebook_size=16,
    code_width=6,
    channels=4,
    strides=(3, 8),
    lstm_layers=1,
)
OFFICIAL = Encodec(
    kind="encodec",
    inputs=1,
    codebooks=4,
    codebook_size=2048,
    code_width=128,
    channels=64,
    strides=(2, 4, 5, 8),
    lstm_layers=2,
)
STEP, BANDS = 24, 5


@pytest.fixture
def small() -> EncodecNetwork:
    torch.manual_seed(0)
    return EncodecNetwork(SMALL).eval()


def test_names_are_the_official_ones(golden):
    """At a small width; of the full size they are compared with the shapes in test_golden_encodec.py."""
    narrow = EncodecNetwork(OFFICIAL.model_copy(update={"channels": 2, "codebook_size": 4}))
    assert narrow.step == 320
    assert set(narrow.state_dict()) == set(golden.manifest("encodec16"))


@torch.inference_mode()
def test_columns_are_as_long_as_the_strides_say_and_the_last_is_completed(small):
    assert small.step == STEP
    for samples, columns in ((STEP, 1), (5 * STEP, 5), (5 * STEP + 1, 6)):
        tokens = small.tokens(torch.randn(2, samples))
        assert tokens.shape == (2, 3, columns)
        assert small.lookup(tokens).shape == (2, 6, columns)
        assert small.decode(tokens).shape == (2, columns * STEP)


@torch.inference_mode()
def test_bands_of_a_mel_are_channels():
    torch.manual_seed(0)
    network = EncodecNetwork(SMALL.model_copy(update={"inputs": BANDS})).eval()
    mel = torch.randn(2, 1, BANDS, 4 * STEP)
    tokens = network.tokens(mel)
    assert tokens.shape == (2, 3, 4)
    assert network.decode(tokens).shape == mel.shape
    torch.testing.assert_close(network.encode_latents(mel), network.encoder(mel[:, 0]))
    torch.testing.assert_close(network.decode(tokens)[:, 0], network.decoder(network.lookup(tokens)))


@pytest.mark.parametrize("inputs", [1, BANDS])
def test_an_example_is_what_makes_so_many_columns(inputs):
    network = EncodecNetwork(SMALL.model_copy(update={"inputs": inputs})).eval()
    example = network.example(2, 3, 5)
    assert network.tokens(example).shape == (2, 3, 5)
    assert network.decode_latents(network.encode_latents(example)).shape == example.shape


@torch.inference_mode()
def test_every_codebook_codes_what_those_before_leave(small):
    wave = torch.randn(2, 10 * STEP)
    latents = small.encode_latents(wave)
    tokens, parts = small.assign(latents)
    assert len(parts) == 4
    codes = [book.embed.numpy() for book in small.quantizer.codebooks]
    for row, column in ((0, 0), (1, 7)):
        left, total = latents[row, :, column].numpy(), np.zeros(6)
        for level, book in enumerate(codes):
            token = ((left - book) ** 2).sum(1).argmin()
            assert tokens[row, level, column] == token
            left, total = left - book[token], total + book[token]
            np.testing.assert_allclose(parts[level + 1][row, :, column], left, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(small.lookup(tokens)[row, :, column], total, rtol=1e-5, atol=1e-6)
    assert torch.equal(parts[0], latents)


@torch.inference_mode()
def test_what_serves_training_alone_changes_no_output(small):
    wave = torch.randn(1, 10 * STEP)
    before = small.tokens(wave)
    for book in small.quantizer.codebooks:
        for buffer in (book.inited, book.cluster_size, book.embed_avg):
            buffer.fill_(7.0)
    assert torch.equal(small.tokens(wave), before)


@torch.inference_mode()
@pytest.mark.parametrize("lstm_layers", [0, 2])
def test_a_clip_never_depends_on_its_batch(lstm_layers):
    torch.manual_seed(0)
    network = EncodecNetwork(SMALL.model_copy(update={"lstm_layers": lstm_layers})).eval()
    assert sum(isinstance(module, nn.LSTM) for module in network.modules()) == (2 if lstm_layers else 0)
    wave = torch.randn(3, 10 * STEP)
    tokens = network.tokens(wave)
    assert torch.equal(network.tokens(wave[1:2]), tokens[1:2])
    torch.testing.assert_close(network.decode(tokens[1:2]), network.decode(tokens)[1:2])


def test_other_weights_are_refused(small):
    tensors = dict(small.state_dict())
    tensors["quantizer.extra"] = tensors.pop("quantizer.vq.layers.1._codebook.embed")
    with pytest.raises(ValueError, match=r"file: .*1 missing .*embed.*1 unknown \(quantizer.extra\)"):
        small.load_official(tensors, "file")


@torch.inference_mode()
def test_a_new_network_neither_swallows_nor_swells_a_sound():
    torch.manual_seed(0)
    network = EncodecNetwork(Encodec(**(OFFICIAL.model_dump() | {"channels": 8, "lstm_layers": 0})))
    wave = 0.1 * torch.randn(2, 3200)
    for inner in (latents := network.encode_latents(wave), network.decode_latents(latents)):
        assert 0.3 < inner.std() / wave.std() < 6


@torch.inference_mode()
def test_samples_are_never_in_half_precision(small):
    with torch.autocast("cpu", torch.bfloat16):
        sound = small.decode_latents(torch.randn(1, 6, 4))
    assert sound.dtype == torch.float32
    assert (sound.bfloat16() != sound).float().mean() > 0.9
