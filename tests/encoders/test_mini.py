"""The mini encoders: shapes and norms, any text, clips that do not depend on their neighbours.

Shape letters: B batch, t video frames, S frame side, M mel bands, L mel frames, D feature width.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder, scale_frames, scale_mel, trigrams
from specmaskfoley.settings import Audio, MiniPromptEncoder, MiniVideoEncoder

SETTINGS = MiniVideoEncoder(kind="mini", width=12, channels=(4, 6))
PROMPT = MiniPromptEncoder(kind="mini", width=12, blocks=2)
MELS, SIDE = 16, 24
AUDIO = Audio(
    duration_s=1.0, sample_rate=22050, n_fft=1024, hop_length=256, num_mels=MELS, fmin=0.0, fmax=8000.0, patch=16
)


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """As if trained: batch norms with statistics of their own."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return module.eval()


@pytest.fixture(scope="module")
def sync() -> SyncEncoder:
    torch.manual_seed(0)
    return trained(SyncEncoder(SETTINGS, AUDIO))


@pytest.fixture(scope="module")
def semantic() -> SemanticEncoder:
    torch.manual_seed(1)
    return trained(SemanticEncoder(SETTINGS))


@pytest.fixture(scope="module")
def prompt() -> PromptEncoder:
    torch.manual_seed(2)
    return trained(PromptEncoder(PROMPT, AUDIO))


def frames(count: int = 3, length: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (count, length, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)


def log_mel(count: int = 3, length: int = 40) -> Tensor:
    return torch.randn(count, MELS, length, generator=torch.Generator().manual_seed(4)) * 2 - 5


def assert_unit(x: Tensor) -> None:
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(x.shape[:-1]))


@torch.inference_mode()
def test_a_vector_a_frame(sync, semantic):
    assert sync(frames()).shape == (3, 9, 12)
    assert semantic(frames()).shape == (3, 9, 12)
    assert sync(frames(1, 1)).shape == (1, 1, 12)


@pytest.mark.parametrize("length", [1, 9, 30])
@torch.inference_mode()
def test_sound_comes_at_the_frame_rate_asked_for(sync, length):
    assert sync.encode_audio(log_mel(), length).shape == (3, length, 12)


@torch.inference_mode()
def test_semantic_and_prompt_vectors_have_length_one(semantic, prompt):
    assert_unit(semantic(frames()))
    assert_unit(semantic.encode_text(["a dog", "rain"]))
    assert_unit(prompt.encode_audio(log_mel()))
    assert_unit(prompt.encode_text(["a dog", "rain"]))
    assert prompt.encode_audio(log_mel()).shape == (3, 12)
    assert prompt.encode_text(["a dog", "rain"]).shape == (2, 12)


@given(st.text())
def test_every_text_has_trigrams(text):
    found = trigrams(text)
    assert found
    assert all(0 <= bucket < 4096 for bucket in found)


@given(st.lists(st.text(min_size=1, alphabet="abcdefgh"), min_size=1, max_size=4))
def test_trigrams_ignore_case_and_spaces_between_words(words):
    assert trigrams("  ".join(words).upper()) == trigrams(" ".join(words))
    assert trigrams(" ".join(words)) == [bucket for word in words for bucket in trigrams(word)]


def test_related_words_share_trigrams_and_others_do_not():
    bounce, bouncing, rain = (set(trigrams(word)) for word in ("bounce", "bouncing", "rain"))
    assert len(bounce & bouncing) >= 4
    assert not bounce & rain


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_any_texts_embed_each_on_its_own(prompt, texts):
    with torch.inference_mode():
        together = prompt.encode_text(texts)
        assert together.shape == (len(texts), 12)
        assert torch.isfinite(together).all()
        assert_unit(together)
        for text, row in zip(texts, together, strict=True):
            torch.testing.assert_close(prompt.encode_text([text])[0], row, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_texts_that_differ_have_other_embeddings(prompt):
    rows = prompt.encode_text(["dog", "cat", "dog "])
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    torch.testing.assert_close(rows[0], rows[2])


@torch.inference_mode()
def test_clips_have_features_of_their_own(sync, semantic, prompt):
    for features in (
        sync(frames()),
        semantic(frames()),
        prompt.encode_audio(log_mel()),
        sync.encode_audio(log_mel(), 9),
    ):
        assert (features[0] - features[1]).abs().max() > 1e-3


@torch.inference_mode()
def test_a_clips_features_do_not_depend_on_its_batch(sync, semantic, prompt):
    close = {"atol": 1e-5, "rtol": 1e-4}
    for index in range(3):
        one = slice(index, index + 1)
        torch.testing.assert_close(sync(frames()[one]), sync(frames())[one], **close)
        torch.testing.assert_close(semantic(frames()[one]), semantic(frames())[one], **close)
        torch.testing.assert_close(prompt.encode_audio(log_mel()[one]), prompt.encode_audio(log_mel())[one], **close)
        torch.testing.assert_close(sync.encode_audio(log_mel()[one], 9), sync.encode_audio(log_mel(), 9)[one], **close)


@torch.inference_mode()
def test_semantic_features_of_a_frame_know_nothing_of_other_frames(semantic):
    swapped = frames().flip(1)
    torch.testing.assert_close(semantic(swapped).flip(1), semantic(frames()), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_sync_features_tell_motion_from_a_standing_picture(sync):
    still = frames(1, 1).expand(-1, 9, -1, -1, -1)
    moving = still.clone()
    moving[:, 5:] = 255 - moving[:, 5:]
    change = (sync(still) - sync(moving)).abs().amax(-1)[0]
    assert change[5] > 1e-2
    # Three temporal blocks with dilations 1, 2, 4 see seven frames to either side, and no further.
    long_still = frames(1, 1).expand(-1, 40, -1, -1, -1)
    long_moving = long_still.clone()
    long_moving[:, 30:] = 255 - long_moving[:, 30:]
    change = (sync(long_still) - sync(long_moving)).abs().amax(-1)[0]
    assert change[:23].max() < 1e-5
    assert change[23] > 1e-6


def test_pixels_and_mels_are_scaled_to_about_one():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(1, 2, 4, 4, 3)
    scaled = scale_frames(pixels)
    assert scaled.shape == (1, 2, 3, 4, 4)
    assert (scaled[0, 0] == -1).all()
    assert (scaled[0, 1] == 1).all()
    assert scale_mel(torch.tensor([-11.0, 1.0])).tolist() == [-1.0, 1.0]


def test_channels_come_before_height_and_width():
    red = torch.zeros(1, 1, 2, 3, 3, dtype=torch.uint8)
    red[0, 0, 0, 2, 0] = 255  # a red pixel at the right end of the first row
    scaled = scale_frames(red)
    assert scaled.shape == (1, 1, 3, 2, 3)
    assert torch.nonzero(scaled == 1.0).tolist() == [[0, 0, 0, 0, 2]]
