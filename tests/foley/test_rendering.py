"""Joining windows."""

from __future__ import annotations

import numpy as np
import torch

from specmaskfoley.foley.rendering import PEAK, Renderer, crossfade, turn_down


def test_one_window_is_what_the_generator_decodes(foley):
    grid = foley.params.grid
    tokens = torch.randint(foley.params.codec.codebook_size, (1, grid.rows, grid.columns))
    sound = np.zeros(foley.params.audio.num_samples, np.float32)
    renderer = Renderer(foley.generator, sound)
    renderer.add(0, tokens[0])
    renderer.finish()
    turn_down(sound)
    np.testing.assert_allclose(sound, foley.generator.decode(tokens)[0].numpy(), atol=1e-6)
    assert renderer.seams == []


def test_equal_waves_pass_through_a_fade_unchanged():
    wave = np.random.default_rng(0).normal(size=441).astype(np.float32)
    np.testing.assert_allclose(crossfade(wave, wave), wave, atol=1e-6)


def test_a_fade_between_unrelated_noises_keeps_their_power():
    random = np.random.default_rng(0)
    old, new = random.normal(size=(2, 20000)).astype(np.float32)
    faded = crossfade(old, new)
    for part in np.split(faded, 5):
        assert abs(np.mean(part**2) - 1) < 0.1
    assert np.allclose(faded[0], old[0], atol=1e-3)
    assert np.allclose(faded[-1], new[-1], atol=1e-3)


def test_fades_of_silence_are_silent():
    assert not crossfade(np.zeros(10, np.float32), np.zeros(10, np.float32)).any()


def test_only_too_loud_sounds_are_turned_down():
    loud, soft = np.array([0.5, -2.0], np.float32), np.array([0.5], np.float32)
    turn_down(loud)
    turn_down(soft)
    np.testing.assert_allclose(loud, [PEAK / 4, -PEAK])
    assert soft[0] == 0.5
