"""Windows over the token grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.foley.windows import plan_windows


@st.composite
def layouts(draw):
    width = draw(st.integers(1, 30))
    overlap = draw(st.integers(0, (width - 1) // 3))
    columns = draw(st.integers(width, 300))
    todo = np.array(draw(st.lists(st.booleans(), min_size=columns, max_size=columns)))
    return todo, width, overlap


@given(layouts())
def test_all_columns_to_do_are_covered_by_ascending_windows_inside_the_grid(layout):
    todo, width, overlap = layout
    starts = plan_windows(todo, width, overlap)
    assert starts == sorted(set(starts))
    assert all(0 <= start <= len(todo) - width for start in starts)
    covered = np.zeros(len(todo), bool)
    for start in starts:
        assert (todo & ~covered)[start : start + width].any(), "a window with nothing to do"
        covered[start : start + width] = True
    assert covered[todo].all()


@given(st.integers(6, 40), st.integers(0, 500))
def test_a_whole_sound_goes_on_from_window_to_window(width, more):
    overlap = width // 4
    starts = plan_windows(np.ones(width + more, bool), width, overlap)
    assert starts[0] == 0
    assert starts[-1] == more
    steps = np.diff(starts)
    assert (steps[:-1] == width - overlap).all()
    assert (steps <= width - overlap).all()


def test_a_short_run_has_context_on_both_sides():
    todo = np.zeros(100, bool)
    todo[50:54] = True
    assert plan_windows(todo, 20, 5) == [42]
    assert plan_windows(np.zeros(100, bool), 20, 5) == []


def test_a_grid_narrower_than_a_window_is_refused():
    with pytest.raises(ValueError, match="width=20"):
        plan_windows(np.ones(10, bool), 20, 5)
