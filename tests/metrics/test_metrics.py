"""Metrics: what must hold for any input (test_golden.py has the official benchmark's numbers)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmaskfoley.encoders.offsets import offset_grid
from specmaskfoley.metrics import frechet
from specmaskfoley.metrics.desync import desync_per_clip
from specmaskfoley.metrics.frechet import fad_score, fd_score, frechet_distance, small_set
from specmaskfoley.metrics.ib import ib_per_clip
from specmaskfoley.metrics.inception import inception_score
from specmaskfoley.metrics.judged import Listened
from specmaskfoley.metrics.kl import kl_per_clip

seeds = st.integers(0, 2**31)


def test_fd_of_known_gaussians() -> None:
    """One-dimensional closed form: (m1 - m2)^2 + (s1 - s2)^2."""
    x, y = np.array([[-1.0], [1.0]]), np.array([[1.0], [7.0]])  # means 0, 4; sample deviations sqrt(2), sqrt(18)
    assert frechet_distance(x, y) == pytest.approx(16 + (np.sqrt(18) - np.sqrt(2)) ** 2)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(2, 40), m=st.integers(2, 40), d=st.integers(1, 20))
def test_fd_is_symmetric_zero_on_itself_and_blind_to_a_common_shift(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(1, 2, size=(m, d))
    distance = frechet_distance(x, y)
    scale = 1 + float((x**2).sum() + (y**2).sum())
    assert distance > 0
    assert frechet_distance(y, x) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(x, x[::-1]) <= 1e-12 * scale
    assert frechet_distance(x + 5, y + 5) == pytest.approx(distance, rel=1e-7)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(distance, rel=1e-7)
    assert frechet_distance(x + 3, x) == pytest.approx(9 * d, rel=1e-7)


def test_fd_of_constant_features_is_the_squared_distance_of_the_means() -> None:
    assert frechet_distance(np.zeros((5, 3)), np.full((9, 3), 2.0)) == pytest.approx(12.0)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(2, 40), d=st.integers(1, 20))
def test_weighing_rows_is_repeating_them(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(1, 2, size=(n, d))
    counts = rng.multinomial(n, np.full(n, 1 / n))
    repeated = frechet_distance(x.repeat(counts, axis=0), y.repeat(counts, axis=0))
    assert frechet_distance(x, y, counts) == pytest.approx(repeated, rel=1e-6)
    assert frechet_distance(x, y, np.ones(n)) == frechet_distance(x, y)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(10, 60), dead=st.integers(1, 10))
def test_fd_does_not_see_features_that_never_change(seed: int, n: int, dead: int) -> None:
    """More vectors than features, and a singular covariance all the same."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 8)), rng.normal(1, 2, size=(n, 8))
    padding = np.full((n, dead), 3.0)
    wide_x, wide_y = np.hstack([x, padding]), np.hstack([y, padding])
    assert frechet_distance(wide_x, wide_y) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    assert frechet_distance(wide_x, wide_x[::-1]) <= 1e-12 * (1 + float((wide_x**2).sum()))


def test_fd_does_not_depend_on_the_size_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50, 6)).astype(np.float32)
    whole = frechet_distance(x, y)
    monkeypatch.setattr(frechet, "_BLOCK", 7)
    assert frechet_distance(x, y) == pytest.approx(whole, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, shift=st.floats(-1e3, 1e3))
def test_kl_is_never_negative_and_blind_to_a_constant_logit(seed: int, shift: float) -> None:
    a, b = np.random.default_rng(seed).normal(0, 5, size=(2, 4, 7))
    assert (kl_per_clip(a, b) >= 0).all()
    assert kl_per_clip(a, a + shift) == pytest.approx(0, abs=1e-9)


def test_kl_survives_certainty() -> None:
    assert kl_per_clip([[1e4, 0.0]], [[0.0, 1e4]]) == pytest.approx(1e4)


def test_ib_of_equal_opposite_and_silent_embeddings() -> None:
    v = np.random.default_rng(0).normal(size=(6, 5))
    assert ib_per_clip(v, 3 * v) == pytest.approx(1)
    assert ib_per_clip(v, -v) == pytest.approx(-1)
    assert (ib_per_clip(v, 0 * v) == 0).all()


def test_the_score_of_a_clip_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(0)
    true, heard = rng.normal(0, 3, size=(2, 5, 7))
    logits, grid = rng.normal(size=(5, 2, 21)), offset_grid(2.0, 21)
    for per_clip, arrays in (
        (kl_per_clip, (true, heard)),
        (ib_per_clip, (true, heard)),
        (lambda windows: desync_per_clip(windows, grid), (logits,)),
    ):
        alone = [per_clip(*(array[clip : clip + 1] for array in arrays)).item() for clip in range(5)]
        np.testing.assert_allclose(per_clip(*arrays), alone, rtol=1e-12)
        assert len(set(alone)) > 1


@settings(max_examples=30, deadline=None)
@given(seed=seeds, classes=st.integers(1, 9), shift=st.floats(-1e3, 1e3))
def test_inception_score_is_between_one_and_the_number_of_classes(seed: int, classes: int, shift: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, size=(30, classes))
    mean, sd = inception_score(logits)
    assert 1 - 1e-9 <= mean <= classes + 1e-9
    assert sd >= 0
    assert inception_score(logits + shift) == pytest.approx((mean, sd), rel=1e-6, abs=1e-9)


def test_inception_score_of_equal_clips_is_one_and_of_one_certain_clip_a_class_their_number() -> None:
    assert inception_score(np.tile([3.0, 1.0, 0.0], (20, 1))) == pytest.approx((1, 0), abs=1e-12)
    certain = inception_score(1e4 * np.eye(5, 6), splits=1)  # a class that no clip has, among them
    assert certain.mean == pytest.approx(5)
    assert certain.sd == 0


def test_desync_takes_the_likeliest_class_and_not_the_expectation() -> None:
    grid = offset_grid(2.0, 21)
    logits = np.zeros((1, 2, 21))
    logits[0, 0, 0] = 0.1  # -2 s, barely ahead: the expectation would be near 0
    logits[0, 1, 10] = 0.1  # in sync
    assert grid[10] == 0
    assert desync_per_clip(logits, grid) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(np.zeros((1, 3)), np.zeros((4, 3))), "generated has shape"),
        (lambda: frechet_distance(np.zeros((4, 3)), np.zeros((4, 2))), "reference 2"),
        (lambda: frechet_distance(np.full((4, 3), np.nan), np.zeros((4, 3))), "NaN"),
        (lambda: frechet_distance(np.zeros((4, 3)), np.zeros((4, 3)), np.ones(3)), r"weights \(3,\) for 4"),
        (lambda: frechet_distance(np.zeros((4, 3)), np.zeros((5, 3)), np.ones(4)), "5 reference"),
        (lambda: frechet_distance(np.zeros((4, 3)), np.zeros((4, 3)), [1, 1, 1, -1]), "from 0 up"),
        (lambda: frechet_distance(np.zeros((4, 3)), np.zeros((4, 3)), [0, 1, 0, 0]), "sum to 2"),
        (lambda: kl_per_clip(np.zeros((2, 3)), np.zeros((3, 3))), r"\(3, 3\)"),
        (lambda: kl_per_clip(np.zeros((0, 3)), np.zeros((0, 3))), "at least one clip"),
        (lambda: kl_per_clip([[np.inf, 0]], [[0, 0]]), "infinite"),
        (lambda: ib_per_clip(np.zeros((2, 3)), np.zeros((2, 4))), r"\(2, 4\)"),
        (lambda: desync_per_clip(np.zeros((2, 21)), offset_grid(2, 21)), "windows"),
        (lambda: desync_per_clip(np.zeros((2, 2, 20)), offset_grid(2, 21)), r"\(21,\)"),
        (lambda: offset_grid(2.0, 20), "odd"),
        (lambda: inception_score(np.zeros(4)), r"logits \(4,\)"),
        (lambda: inception_score(np.zeros((0, 3))), "at least one clip"),
        (lambda: inception_score(np.zeros((9, 3))), "splits=10 of 9 clips"),
        (lambda: inception_score(np.full((10, 3), np.nan)), "NaN"),
    ],
)
def test_wrong_shapes_and_values_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def heard(clips: int, width: int = 40, stretches: int = 5, seed: int = 0) -> Listened:
    rng = np.random.default_rng(seed)
    nothing = np.zeros((clips, 1))
    rows = rng.normal(size=(clips, width))
    return Listened(nothing, rows, rng.normal(size=(clips, stretches, width)), nothing, ((),) * clips, ())


@pytest.mark.parametrize(
    ("clips", "fd", "fad"),
    [
        (8, False, False),  # 8 and 40 vectors for a covariance of 40 features
        (9, False, True),
        (29, False, True),
        (30, True, True),  # singular, but as papers print it
        (41, True, True),
    ],
)
def test_frechet_distances_of_too_few_clips_are_not_given(clips: int, fd: bool, fad: bool) -> None:
    one, other = heard(clips), heard(clips, seed=1)
    assert (fd_score(one, other) is not None, fad_score(one, other) is not None) == (fd, fad)
    counts = np.full(clips, 1)
    counts[:4] = (0, 2, 0, 2)  # a resample has fewer different clips; the rule is about the set
    assert (fd_score(one, other, counts) is not None) == fd


def test_what_is_said_of_few_clips() -> None:
    missing, given = small_set(heard(8))
    assert [sentence.split(":")[1] for sentence in missing] == [" it is not given below 30 clips."] * 2
    assert given == []
    assert small_set(heard(30)) == (
        [],
        [
            "FD has 30 vectors for a covariance of 40 features, which is singular: compare it at the same number of "
            "clips only."
        ],
    )
    assert small_set(heard(41)) == ([], [])
