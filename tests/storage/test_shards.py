"""Shards that grow: nothing is made twice, nothing half-made is read, and histories do not show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmaskfoley.storage.shards import Row, ShardPool, row_key
from specmaskfoley.storage.tables import read_arrays, write_shard


def rows(ids):
    return [Row(f"clip{number}", row_key(str(number))) for number in ids]


def value(row):
    return np.full((2, 3), int(row.clip_id.removeprefix("clip")), np.int16)


def begin(directory, wanted, unit_rows=3, shard_rows=4):
    directory.mkdir(exist_ok=True)
    return ShardPool(
        directory, {split: rows(ids) for split, ids in wanted.items()}, unit_rows=unit_rows, shard_rows=shard_rows
    )


def make(pool, limit=None):
    """Make units that are not finished, at most `limit`; how many rows that took."""
    open_units = [unit for unit in pool.units if not pool.finished(unit)][:limit]
    for unit in open_units:
        array = np.stack([value(row) for row in unit])
        write_shard(pool.unit_path(unit), [row.clip_id for row in unit], {"x": array}, keys=[row.key for row in unit])
    return sum(len(unit) for unit in open_units)


def files(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def check(out, wanted):
    for split, ids in wanted.items():
        found, arrays = read_arrays(out, split)
        assert found == [f"clip{number}" for number in ids]
        np.testing.assert_array_equal(arrays["x"], np.stack([value(row) for row in rows(ids)]))


IDS = st.lists(st.integers(0, 20), min_size=1, max_size=14, unique=True)


@pytest.mark.kill
@settings(max_examples=60, deadline=None)
@given(
    history=st.lists(st.tuples(IDS, IDS, st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=4),
    last=st.tuples(IDS, IDS),
)
def test_any_history_of_runs_and_kills_ends_in_the_same_shards(tmp_path_factory, history, last):
    root = tmp_path_factory.mktemp("pool")
    made, total = set(), 0
    for train, test, units, unit_rows in history:
        pool = begin(root / "pool", {"train": train, "test": test}, unit_rows=unit_rows)
        before = {row.key for unit in pool.units if pool.finished(unit) for row in unit}
        total += make(pool, units)
        finished = {row.key for unit in pool.units if pool.finished(unit) for row in unit}
        assert not (finished - before) & made, "a row was made twice"
        made |= finished
        if all(pool.finished(unit) for unit in pool.units):
            pool.deliver(root / "out")
            check(root / "out", {"train": train, "test": test})
    wanted = {"train": last[0], "test": last[1]}
    pool = begin(root / "pool", wanted)
    make(pool)
    pool.deliver(root / "out")
    check(root / "out", wanted)
    fresh = begin(root / "fresh", wanted)
    make(fresh)
    fresh.deliver(root / "fresh_out")
    assert files(root / "out") == files(root / "fresh_out")
    assert not begin(root / "pool", wanted).units


def test_a_thousand_more_cost_a_thousand(tmp_path):
    pool = begin(tmp_path / "pool", {"train": range(50)})
    assert make(pool) == 50
    pool.deliver(tmp_path / "out")
    assert make(begin(tmp_path / "pool", {"train": range(60)})) == 10


def test_a_killed_run_keeps_its_units(tmp_path):
    first = begin(tmp_path / "pool", {"train": range(10)})
    make(first, 2)
    again = begin(tmp_path / "pool", {"train": range(10)})
    assert [unit for unit in again.units if again.finished(unit)] == first.units[:2]
    assert again.units == first.units


def test_rows_of_a_unit_that_lost_one_are_kept(tmp_path):
    """The worker puts them under a name of their own; see extraction.worker."""
    pool = begin(tmp_path / "pool", {"train": range(9)})
    make(pool, 1)
    good = pool.units[1][:2]
    write_shard(
        tmp_path / "pool" / "rows-x.parquet",
        [row.clip_id for row in good],
        {"x": np.stack([value(row) for row in good])},
        keys=[row.key for row in good],
    )
    pool.units.pop(1)
    assert make(pool) == 3
    again = begin(tmp_path / "pool", {"train": [*range(5), *range(6, 9)]})
    assert make(again) == 0
    again.deliver(tmp_path / "out")
    check(tmp_path / "out", {"train": [*range(5), *range(6, 9)]})


def test_equal_rows_are_made_once(tmp_path):
    pool = ShardPool(tmp_path, {"train": [Row("a", "k"), Row("b", "k")]}, unit_rows=8, shard_rows=8)
    assert sum(len(unit) for unit in pool.units) == 1
    write_shard(pool.unit_path(pool.units[0]), ["b"], {"x": np.ones((1, 2), np.int16)}, keys=["k"])
    pool.deliver(tmp_path / "out")
    assert read_arrays(tmp_path / "out", "train")[0] == ["a", "b"]


def test_the_output_holds_links_and_old_files_go(tmp_path):
    pool = begin(tmp_path / "pool", {"train": range(6)})
    make(pool)
    pool.deliver(tmp_path / "out")
    shards = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in shards] == ["train-00000.parquet", "train-00001.parquet"]
    assert all(path.stat().st_nlink == 2 for path in shards)
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "pool").iterdir()) == ["plan", "shard", "shard"]


def test_a_key_stands_for_all_its_parts():
    assert row_key("ab", "c") != row_key("a", "bc")
    assert row_key("ab") == row_key("ab")
    assert len(row_key("x")) == 32


def test_half_written_files_are_not_seen(tmp_path):
    pool = begin(tmp_path / "pool", {"train": range(3)})
    unit = pool.units[0]
    target = pool.unit_path(unit)
    target.with_name(f".tmp-1-{target.name}").write_bytes(b"half")
    assert not pool.finished(unit)
    again = begin(tmp_path / "pool", {"train": range(3)})
    with pytest.raises(KeyError):  # a unit is missing: a fault of the caller
        again.deliver(tmp_path / "out")
