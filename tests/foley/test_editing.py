"""What is replaced, and what is kept."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.foley.editing import check_spans, columns_of, extended, find_holes, replaced, rows_above
from specmaskfoley.settings import Params

PARAMS = Params.load("params.yaml")
AUDIO = PARAMS.audio
RATE = 8000


def noise(seconds: float, rate: int = RATE, channels: int = 0) -> np.ndarray:
    shape = (round(seconds * rate), channels) if channels else (round(seconds * rate),)
    return np.random.default_rng(1).uniform(-0.5, 0.5, shape).astype(np.float32)


@given(st.lists(st.tuples(st.floats(0, 9.9), st.floats(0.01, 5)), min_size=1, max_size=5))
def test_spans_come_out_in_order_and_apart(pairs):
    spans = check_spans([(begin, begin + length) for begin, length in pairs], 10.0)
    assert all(0 <= begin < end <= 10.0 for begin, end in spans)
    assert all(first[1] < second[0] for first, second in pairwise(spans))
    for begin, _ in pairs:
        assert any(low <= begin <= high for low, high in spans)


@pytest.mark.parametrize("span", [(2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (11.0, 12.0)])
def test_impossible_spans_are_named(span):
    with pytest.raises(ValueError, match="only="):
        check_spans([span], 10.0)


@given(st.floats(0, 3.9), st.floats(0.01, 4), st.sampled_from([0, 1, 2]))
def test_every_sample_outside_is_kept_to_the_bit(begin, length, channels):
    base, new = noise(4, channels=channels), noise(4, 22050)
    spans = check_spans([(begin, begin + length)], 4.0)
    result = replaced(base, RATE, new, 22050, spans, 4.0)
    assert result.shape == base.shape
    first, last = round(spans[0][0] * RATE), round(spans[0][1] * RATE)
    np.testing.assert_array_equal(result[:first], base[:first])
    np.testing.assert_array_equal(result[last:], base[last:])
    inner = slice(first + 200, last - 200)
    if inner.stop > inner.start:
        assert not np.array_equal(result[inner], base[inner])


def test_holes_and_the_missing_end_are_found():
    wave = noise(4)
    wave[8000:12000] = 0
    wave[20000:20100] = 0  # too short
    holes = find_holes(wave, RATE, 6.0)
    assert holes[0] == (1.0, 1.5)
    assert holes[1] == pytest.approx((3.98, 6.0))
    assert find_holes(noise(4), RATE, 4.0) == []
    stereo = np.stack([wave, noise(4)], axis=1)
    assert len(find_holes(stereo, RATE, 4.0)) == 0, "one of two channels sounds"
    assert find_holes(np.zeros(4 * RATE, np.float32), RATE, 4.0) == [(0.0, 4.0)]


def test_columns_are_those_that_a_span_touches():
    width_s = AUDIO.patch * AUDIO.hop_length / AUDIO.sample_rate
    inside = columns_of([(width_s * 2.5, width_s * 4)], width_s, 10)
    assert np.flatnonzero(inside).tolist() == [2, 3]


def test_rows_above_a_frequency():
    assert rows_above(3000, PARAMS).tolist() == [False, False, False, True, True]
    for hz in (10.0, 8000.0, 20000.0):
        with pytest.raises(ValueError, match=f"--extend-band {hz:g}"):
            rows_above(hz, PARAMS)


def test_extension_adds_only_what_is_above():
    rate, hz = 22050, 3000.0
    time = np.arange(4 * rate) / rate
    low = (0.3 * np.sin(2 * np.pi * 500 * time)).astype(np.float32)
    high = (0.3 * np.sin(2 * np.pi * 5000 * time)).astype(np.float32)
    result, out_rate = extended(low, rate, 0.5 * low + high, rate, hz)
    assert out_rate == rate
    np.testing.assert_allclose(result[2000:-2000], (low + high)[2000:-2000], atol=2e-3)
    result, out_rate = extended(noise(1), RATE, high, rate, hz)
    assert out_rate == rate
    assert len(result) == pytest.approx(rate, abs=2)
