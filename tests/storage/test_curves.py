"""Training curves on disk: a CSV a training."""

from __future__ import annotations

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specmaskfoley.storage.curves import read_curves, write_curves

CURVES = {"loss": [(10, 2.5), (20, 1.25), (25, 1.0)], "val_loss": [(25, 1.5)]}


def test_a_row_a_step_with_empty_cells_where_nothing_was_measured(tmp_path):
    write_curves(str(tmp_path), "codec", CURVES)
    with (tmp_path / "curves" / "codec.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["step", "loss", "val_loss"], ["10", "2.5", ""], ["20", "1.25", ""], ["25", "1", "1.5"]]


numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
curve = st.dictionaries(st.integers(0, 10**6), numbers, min_size=1, max_size=8).map(lambda d: sorted(d.items()))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["loss", "accuracy", "val_loss"]), curve, max_size=3))
def test_curves_come_back_to_six_digits(tmp_path, curves):
    write_curves(str(tmp_path), "x", curves)
    found = read_curves(tmp_path / "curves" / "x.csv")
    assert found == {
        name: [(step, pytest.approx(value, rel=1e-5, abs=1e-300)) for step, value in points]
        for name, points in curves.items()
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_name(tmp_path, bad):
    with pytest.raises(ValueError, match=r"codec: accuracy is (nan|inf) at step 2"):
        write_curves(str(tmp_path), "codec", {"loss": [(1, 1.0)], "accuracy": [(2, bad), (3, 0.5)]})
    assert list(tmp_path.rglob("*")) == []


def test_nothing_half_written_is_left(tmp_path):
    write_curves(str(tmp_path), "codec", CURVES)
    with pytest.raises(TypeError):
        write_curves(str(tmp_path), "codec", {"loss": [(10, 2.5), (20, "many")]})  # type: ignore[list-item]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["codec.csv"]
    assert read_curves(tmp_path / "curves" / "codec.csv")["loss"][-1] == (25.0, 1.0)
