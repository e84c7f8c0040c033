"""In which order rows come, and that they come whole, whoever reads them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.storage.rows import ShardRows
from specmaskfoley.storage.tables import write_shard
from specmaskfoley.training.batches import Batches, InMemory, RowOrder

SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=40)


def order(sizes: list[int], seed: int = 0, window: int = 16, lanes: int = 4) -> RowOrder:
    return RowOrder(np.array(sizes), seed, window=window, lanes=lanes)


@given(SIZES, st.integers(0, 1000), st.integers(0, 5), st.integers(1, 100), st.integers(1, 5))
def test_every_row_comes_exactly_once_an_epoch(sizes, seed, epoch, window, lanes):
    rows = order(sizes, seed, window, lanes).epoch(epoch)
    np.testing.assert_array_equal(np.sort(rows), np.arange(sum(sizes)))


@given(SIZES, st.permutations(range(6)))
def test_rows_at_a_position_do_not_depend_on_what_was_asked_before(sizes, asked):
    straight = order(sizes)
    expected = [straight.rows(np.arange(7 * step, 7 * step + 7)) for step in range(6)]
    jumping = order(sizes)
    for step in asked:
        np.testing.assert_array_equal(jumping.rows(np.arange(7 * step, 7 * step + 7)), expected[step])


def test_epochs_and_seeds_have_their_own_order():
    sizes = [8] * 20
    assert not np.array_equal(order(sizes).epoch(0), order(sizes).epoch(1))
    assert not np.array_equal(order(sizes).epoch(0), order(sizes, seed=1).epoch(0))


def test_neighbours_on_disk_are_as_good_as_strangers():
    """Of what a group shares, the means of batches vary within a fifth as much as those of independent rows do."""
    n, batch = 48_000, 64
    rows = RowOrder(np.full(n // 8, 8), 0).epoch(0)
    shared = np.random.default_rng(0).standard_normal(n // 8)[rows // 8]
    means = shared[: n // batch * batch].reshape(-1, batch).mean(1)
    assert 0.8 < means.var() / (shared.var() / batch) < 1.2
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.02


def test_a_split_that_fits_into_the_window_is_shuffled_as_a_whole():
    rows = order([8] * 2).epoch(0)
    assert {int(row) // 8 for row in rows[:8]} == {0, 1}


def test_an_empty_training_split_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        order([0])


class Counted(InMemory):
    """Rows in groups of 4, whose column `x` is their number; counts the groups in memory and those read."""

    def __init__(self, num_rows: int) -> None:
        super().__init__([f"clip{n}" for n in range(num_rows)])
        self.group_sizes = np.full(num_rows // 4, 4)
        self.read_groups: list[int] = []
        self.lock = threading.Lock()

    def read(self, group: int) -> Mapping[str, np.ndarray]:
        with self.lock:
            self.read_groups.append(group)
        return {"x": np.arange(4 * group, 4 * group + 4, dtype=np.float32)[:, None]}


def read(rows: Counted, steps: range, rank: int = 0, ranks: int = 1, batch_size: int = 8) -> list[list[int]]:
    made = order(rows.group_sizes.tolist())
    with Batches(rows, made, batch_size=batch_size, steps=steps, rank=rank, ranks=ranks) as batches:
        found = []
        for batch in batches:
            np.testing.assert_array_equal(batch["x"][:, 0].numpy(), batch["row"].numpy())
            found.append(batch["row"].tolist())
    return found


def test_batches_hold_the_rows_of_the_order_across_epochs():
    rows = Counted(100)
    expected = order(rows.group_sizes.tolist())
    assert read(rows, range(30)) == [expected.rows(np.arange(8 * s, 8 * s + 8)).tolist() for s in range(30)]


@pytest.mark.parametrize("start", [1, 12, 13, 29])
def test_going_on_at_a_step_gives_the_batches_from_there(start):
    assert read(Counted(100), range(start, 30)) == read(Counted(100), range(30))[start:]


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_share_every_step(ranks):
    whole = read(Counted(100), range(30))
    parts = [read(Counted(100), range(30), rank, ranks) for rank in range(ranks)]
    for step, rows in enumerate(whole):
        assert [parts[number % ranks][step][number // ranks] for number in range(8)] == rows


def test_ranks_read_little_twice():
    """Four ranks on four lanes: together they read each group once an epoch, but for those that two lanes share."""
    rows = [Counted(400) for _ in range(4)]
    for rank in range(4):
        read(rows[rank], range(50), rank, 4)
    assert sum(len(one.read_groups) for one in rows) <= 100 + 3


def test_a_group_is_read_once_an_epoch_and_let_go(tmp_path):
    rows = Counted(400)
    read(rows, range(150))
    assert len(rows.read_groups) == 3 * 100


def test_leaving_early_stops_the_threads():
    before = threading.active_count()
    rows = Counted(400)
    with Batches(rows, order(rows.group_sizes.tolist()), batch_size=8, steps=range(10_000)) as batches:
        next(iter(batches))
    assert threading.active_count() == before


def test_an_error_of_reading_reaches_the_training():
    class Broken(Counted):
        def read(self, group: int) -> Mapping[str, np.ndarray]:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        read(Broken(40), range(5))


def write(folder: Path, split: str, columns: dict[str, np.ndarray], first: int = 0, shard_rows: int = 20) -> None:
    folder.mkdir(exist_ok=True)
    total = len(next(iter(columns.values())))
    for number, start in enumerate(range(0, total, shard_rows)):
        part = {name: values[start : start + shard_rows] for name, values in columns.items()}
        ids = [f"clip{first + n}" for n in range(start, min(total, start + shard_rows))]
        write_shard(folder / f"{split}-{number:05d}.parquet", ids, part)


def test_rows_are_joined_over_directories_and_follow_one_another_over_data_sets(tmp_path):
    tokens = np.arange(50 * 6, dtype=np.int16).reshape(50, 2, 3)
    sync = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float16)
    write(tmp_path / "tokens", "train", {"tokens": tokens})
    write(tmp_path / "features", "train", {"sync": sync, "other": sync})
    write(tmp_path / "audio", "train", {"tokens": tokens[:5] + 1, "sync": sync[:5]}, first=50)
    join = {str(tmp_path / "tokens"): ["tokens"], str(tmp_path / "features"): ["sync"]}
    rows = ShardRows([join, {str(tmp_path / "audio"): ["tokens", "sync"]}], "train")
    assert rows.ids == [f"clip{n}" for n in range(55)]
    assert rows.group_sizes.sum() == 55
    assert max(rows.group_sizes) == 8
    found = [rows.read(group) for group in range(len(rows.group_sizes))]
    assert set(found[0]) == {"tokens", "sync"}
    np.testing.assert_array_equal(
        np.concatenate([f["tokens"] for f in found]), np.concatenate([tokens, tokens[:5] + 1])
    )
    np.testing.assert_array_equal(np.concatenate([f["sync"] for f in found]), np.concatenate([sync, sync[:5]]))
    picked = rows.take([54, 0, 23])
    np.testing.assert_array_equal(picked["tokens"], np.stack([tokens[4] + 1, tokens[0], tokens[23]]))


def test_an_empty_data_set_adds_nothing(tmp_path):
    tokens = np.zeros((5, 2), np.int16)
    write(tmp_path / "tokens", "train", {"tokens": tokens})
    (tmp_path / "audio").mkdir()
    write_shard(tmp_path / "audio" / "train-00000.parquet", [], {"tokens": tokens[:0]})
    rows = ShardRows([{str(tmp_path / "tokens"): ["tokens"]}, {str(tmp_path / "audio"): ["tokens"]}], "train")
    assert len(rows) == 5


def test_directories_of_other_clips_are_refused(tmp_path):
    values = np.zeros((10, 2), np.int16)
    write(tmp_path / "a", "train", {"x": values})
    write(tmp_path / "b", "train", {"y": values}, first=1)
    write(tmp_path / "c", "train", {"z": values}, shard_rows=5)
    for other, column in (("b", "y"), ("c", "z")):
        join = {str(tmp_path / "a"): ["x"], str(tmp_path / other): [column]}
        with pytest.raises(ValueError, match="list different clips of split train"):
            ShardRows([join], "train")
