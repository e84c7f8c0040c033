"""The order of several takes, and what their scores say in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specmaskfoley.foley import Foley
from specmaskfoley.foley.choosing import Verdict, doubt, rank, verdicts
from specmaskfoley.foley.inpainting import Watch
from specmaskfoley.settings import Params

GRID = np.linspace(-2, 2, 21)
"""A sound at a random time is 1.05 s off."""


def of(*scores: tuple[float, float], silent: int = 0, kind: str = "mini") -> list[Verdict]:
    """Verdicts of takes with (sync_s, semantic), of which the last `silent` are nearly silent."""
    found = [{"sync_s": sync, "semantic": fit, "overall": fit - sync / 2} for sync, fit in scores]
    return verdicts(found, [number >= len(scores) - silent for number in range(len(scores))], GRID, kind)


@pytest.mark.parametrize(
    ("sync_s", "words"),
    [
        (0.08, "in time (0.08 s)"),
        (0.41, "in time (0.41 s)"),
        (0.5, "partly in time (0.50 s)"),
        (0.74, "about chance (0.74 s; 0 to 2.0 s at random is 1.05 s)"),
        (1.1, "about chance (1.10 s; 0 to 2.0 s at random is 1.05 s)"),
        (1.9, "about chance (1.90 s; 0 to 2.0 s at random is 1.05 s)"),
    ],
)
def test_time_in_words(sync_s: float, words: str):
    assert of((sync_s, 0.5), (2.0, 0.5))[0].sync == words


@pytest.mark.parametrize(
    ("semantic", "words"),
    [
        (0.84, "fits what is seen (0.84)"),
        (0.5, "fits in part (0.50)"),
        (0.1, "fits something else (0.10)"),
        (-0.6, "fits something else (-0.60)"),
    ],
)
def test_meaning_in_words(semantic: float, words: str):
    assert of((0.1, semantic), (2.0, -1.0))[0].meaning == words


def test_judges_of_whom_nothing_was_measured_have_a_number_and_its_range():
    assert of((0.1, 0.31), (1.0, 0.1), kind="paper")[0].meaning == "0.31 (-1 to 1)"


def test_the_first_is_called_best_with_the_reason():
    first, second = of((0.1, 0.8), (0.6, 0.7))
    assert (first.best, second.best, second.why) == (True, False, "")
    assert first.why == "more in time (0.10 s against 0.60 s) and more fitting (0.80 against 0.70) than the next take"
    assert first.scores == "in time (0.10 s), meaning: fits what is seen (0.80), overall 0.75"
    assert first.place == f"fits best: {first.why}"
    assert of((0.1, 0.269), (0.8, 0.271))[0].why == "more in time (0.10 s against 0.80 s) than the next take"


def test_the_first_may_be_the_worst_in_time_only_with_a_reason():
    first, *_ = of((0.7, 0.9), (0.6, 0.3), (0.5, 0.2))
    assert first.best
    assert first.why == (
        "more fitting (0.90 against 0.30) than the next take, which outweighs that it is less in time (0.70 s against "
        "0.60 s)"
    )
    first, *_ = of((1.1, 0.9), (0.1, 0.1))
    assert not first.best
    assert first.why.startswith(
        "first, but about as much in time as chance: it is more fitting (0.90 against 0.10) than"
    )


@pytest.mark.parametrize(
    ("scores", "silent", "why"),
    [
        ([(1.1, 0.44), (1.2, 0.1)], 0, "no take is more in time than chance, and so none is the best"),
        ([(0.30, 0.80), (0.35, 0.79)], 0, "first, but the next take is as good within the noise of the judges"),
        ([(0.3, 0.8), (0.1, 0.9)], 1, "first because all others are nearly silent"),
        ([(0.3, 0.8), (0.5, 0.1)], 2, "all takes are nearly silent"),
        ([(1.1, 0.8), (1.2, 0.1), (0.1, 0.9)], 1, "no take is more in time than chance, and so none is the best"),
    ],
)
def test_nothing_is_called_best_by_chance(scores: list[tuple[float, float]], silent: int, why: str):
    found = of(*scores, silent=silent)
    assert not any(one.best for one in found)
    assert found[0].why == why


def test_nearly_silent_takes_come_last_in_the_order_of_their_scores():
    scores = [{"overall": value} for value in (0.9, 0.1, 0.8, -0.5)]
    assert rank(scores, [True, False, True, False]) == [1, 3, 0, 2]


def test_a_take_that_is_nearly_silent_is_not_the_first(foley: Foley, video: Path):
    """Whatever the judges say of it."""
    takes = foley.generate(video, candidates=3)
    quiet = replace(takes[0], waveform=np.array(takes[0].waveform) * np.float32(1e-5))
    ranked = foley._ranked([quiet, *takes[1:]], Watch(None, None))
    assert ranked[-1].seed == quiet.seed
    assert ranked[-1].verdict is not None
    assert ranked[-1].verdict.why == "nearly silent, and so among the last"
    assert [one["nearly_silent"] for one in ranked[0].record["candidates"]] == [False, False, True]


def test_the_judges_of_a_small_model_are_doubted():
    assert doubt(Params.load()) == (
        "the judges have only learnt from drawn scenes: of other videos their numbers say little"
    )
    assert doubt(Params.load(profile="vggsound")) == ""
