"""VGGish: how a sound is cut into examples, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from specmaskfoley.judges.vggish import VGGish

SHORTEST = 400 + 95 * 160


@pytest.fixture(scope="module")
def vggish() -> VGGish:
    torch.manual_seed(0)
    return VGGish().eval()


def noise(samples: int, clips: int = 1) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_one_vector_for_each_example(vggish):
    found = vggish(noise(2 * 16000, clips=3))
    assert found.shape == (3, 2, 128)
    assert found.dtype == torch.float32
    assert (found < 0).any()  # the public model ends in a ReLU, the benchmark's does not


@pytest.mark.parametrize(
    ("samples", "count"), [(160_000, 10), (128_000, 8), (SHORTEST, 1), (SHORTEST + 95 * 160 + 159, 1)]
)
def test_only_full_examples_count(vggish, samples, count):
    assert vggish.examples(noise(samples)).shape == (1, count, 96, 64)


def test_what_does_not_fill_an_example_changes_nothing(vggish):
    wave = noise(3 * 16000)
    assert torch.equal(vggish.examples(wave), vggish.examples(wave[:, : 240 + 3 * 96 * 160]))


@torch.inference_mode()
def test_examples_do_not_see_each_other(vggish):
    wave = noise(2 * 16000)
    torch.testing.assert_close(vggish(wave)[:, 1:], vggish(wave[:, 96 * 160 :]))


def test_too_short_a_wave_is_an_error(vggish):
    with pytest.raises(ValueError, match=r"15599 samples.*0\.975 s"):
        vggish.examples(noise(SHORTEST - 1))


def test_silence_is_the_logarithm_of_the_offset(vggish):
    examples = vggish.examples(torch.zeros(1, SHORTEST))
    torch.testing.assert_close(examples, torch.full_like(examples, math.log(0.01)))


@pytest.mark.parametrize("hz", [300.0, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_its_band(vggish, hz):
    wave = torch.sin(2 * math.pi * hz * torch.arange(SHORTEST) / 16000)[None]
    low, high, mel = (1127 * math.log1p(f / 700) for f in (125.0, 7500.0, hz))
    band = 65 * (mel - low) / (high - low) - 1  # centres lie at 1, 2, ... of 65 equal steps
    loudest = vggish.examples(wave)[0, 0].argmax(-1)
    assert ((loudest - band).abs() < 1).all()


def test_the_front_end_ignores_autocast(vggish):
    wave = noise(SHORTEST)
    with torch.autocast("cpu", torch.bfloat16):
        found = vggish.examples(wave)
    assert torch.equal(found, vggish.examples(wave))


@torch.inference_mode()
def test_under_autocast_the_vectors_are_still_float32(vggish):
    with torch.autocast("cpu", torch.bfloat16):
        assert vggish(noise(SHORTEST)).dtype == torch.float32


def test_names_that_are_not_its_own_are_refused():
    with torch.device("meta"):
        vggish = VGGish()
    tensors = dict(vggish.state_dict())
    vggish.load_official(tensors, "vggish.pth")
    with pytest.raises(ValueError, match=r"vggish\.pth: not the weights of VGGish: 1 unknown \(pproc\.pca_means\)"):
        vggish.load_official({**tensors, "pproc.pca_means": torch.zeros(128)}, "vggish.pth")
    del tensors["embeddings.4.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(embeddings\.4\.bias\)"):
        vggish.load_official(tensors, "vggish.pth")
