"""Batches of files: in order, whole, and seen as each view and heard as each sound says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.media.clips import read_media, stream_media
from specmaskfoley.media.frames import View, read_views, three_crops
from specmaskfoley.media.sound import Sound
from specmaskfoley.media.writing import write_video

SMALL = View(fps=5.0, frames=4, size=16, fit="stretch", rule="on_screen")
CROPS = View(fps=2.0, frames=2, size=16, fit="three_crops", rule="rate_filter")
SOUND = Sound(sample_rate=8000, num_samples=8000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven videos of one second whose grey level tells which they are."""
    folder = tmp_path_factory.mktemp("files")
    made = []
    for index in range(7):
        frames = np.full((10, 32, 64, 3), 30 * index + 20, np.uint8)
        wave = np.sin(np.arange(16000) * 0.2).astype(np.float32) * 0.1 * (index + 1)
        made.append(folder / f"{index}.mp4")
        write_video(made[-1], frames, 10, wave, 16000)
    return made


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 20])
def test_batches_come_in_order_and_hold_every_file_once(files: list[Path], batch_size: int) -> None:
    parts = list(stream_media(files, views=(SMALL,), sounds=(SOUND,), batch_size=batch_size, workers=2))
    assert [index for part in parts for index in range(part.rows.start, part.rows.stop)] == list(range(7))
    levels = np.concatenate([part.frames[SMALL] for part in parts]).mean((1, 2, 3, 4))
    np.testing.assert_allclose(levels, 30 * np.arange(7) + 20, atol=6)
    assert all(part.waves[SOUND].shape == (part.rows.stop - part.rows.start, 8000) for part in parts)


def test_views_of_one_decoding_are_those_of_their_own(files: list[Path]) -> None:
    both = read_views(files[3], (SMALL, CROPS))
    assert both[SMALL].shape == (4, 16, 16, 3)
    assert both[CROPS].shape == (3, 2, 16, 16, 3)
    for view in (SMALL, CROPS):
        np.testing.assert_array_equal(both[view], read_views(files[3], (view,))[view])


def test_all_at_once_is_the_stream(files: list[Path]) -> None:
    media = read_media(files, views=(SMALL, SMALL), sounds=(SOUND,))
    parts = list(stream_media(files, views=(SMALL,), sounds=(SOUND,), batch_size=2))
    np.testing.assert_array_equal(media.frames[SMALL], np.concatenate([part.frames[SMALL] for part in parts]))
    np.testing.assert_array_equal(media.waves[SOUND], np.concatenate([part.waves[SOUND] for part in parts]))


@given(length=st.integers(8, 40), upright=st.booleans())
def test_three_crops_are_the_start_the_centre_and_the_end_of_the_long_side(length: int, upright: bool) -> None:
    frames = np.broadcast_to(np.arange(length, dtype=np.uint8)[None, None, :, None], (2, 8, length, 3))
    if upright:
        frames = frames.swapaxes(1, 2)
    crops = three_crops(frames, 8)
    assert crops.shape == (3, 2, 8, 8, 3)
    along = crops[:, 0, :, 0, 0] if upright else crops[:, 0, 0, :, 0]
    starts = [0, -(-(length - 8) // 2), length - 8]
    np.testing.assert_array_equal(along, [np.arange(start, start + 8) for start in starts])
