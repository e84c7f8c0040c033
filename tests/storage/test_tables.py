import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmaskfoley.storage.tables import (
    CLIP_LIST_SCHEMA,
    LEDGER_SCHEMA,
    USABLE_SCHEMA,
    ShardWriter,
    read_arrays,
    read_table,
    ready_clips,
    summarise,
    write_table,
)


def clip(clip_id="a", **more):
    listed = {"state": "listed", "reason": ""}
    return {"clip_id": clip_id, "path": "a.mp4", "label": "dog", "source": "folder", **listed, **more}


def entry(clip_id, state="ready", reason="", **more):
    return clip(clip_id, state=state, reason=reason, **more)


def test_unknown_and_no_events_stay_apart(tmp_path):
    path = tmp_path / "clips.parquet"
    write_table(path, [clip(events=None), clip("b", events=[]), clip("c", events=[0.5])], CLIP_LIST_SCHEMA)
    assert [row["events"] for row in read_table(path, CLIP_LIST_SCHEMA)] == [None, [], [0.5]]


def test_wrong_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="lable"):
        write_table(tmp_path / "t", [clip(lable="x")], CLIP_LIST_SCHEMA)
    with pytest.raises(ValueError, match="label of a must not be empty"):
        write_table(tmp_path / "t", [clip(label=None)], CLIP_LIST_SCHEMA)
    with pytest.raises(ValueError, match="does not fit"):
        write_table(tmp_path / "t", [clip(events="soon")], CLIP_LIST_SCHEMA)


def test_wrong_schema_says_what_differs(tmp_path):
    path = tmp_path / "clips.parquet"
    write_table(path, [clip()], CLIP_LIST_SCHEMA)
    with pytest.raises(ValueError, match="lacks sha256, size_bytes"):
        read_table(path, LEDGER_SCHEMA)
    with pytest.raises(ValueError, match="no such file"):
        read_table(tmp_path / "absent", LEDGER_SCHEMA)
    path.write_text("not parquet")
    with pytest.raises(ValueError, match="not a readable Parquet"):
        read_table(path, LEDGER_SCHEMA)


def test_ready_clips_are_ordered_and_of_the_split(tmp_path):
    path = tmp_path / "usable.parquet"
    rows = [entry("b", split="test", events=[1.0]), entry("a", split="test"), entry("c", split="train")]
    write_table(path, rows, USABLE_SCHEMA)
    assert [row.clip_id for row in ready_clips(path, "test")] == ["a", "b"]
    assert [row.clip_id for row in ready_clips(path)] == ["a", "b", "c"]
    assert ready_clips(path, "test")[1].events == (1.0,)


def test_a_split_without_usable_clips_is_named(tmp_path):
    path = tmp_path / "usable.parquet"
    write_table(path, [entry("c", split="train")], USABLE_SCHEMA)
    with pytest.raises(ValueError, match=r"no usable clip in split 'val' \(usable: train 1\).*specmaskfoley ledger"):
        ready_clips(path, "val")
    write_table(path, [], USABLE_SCHEMA)
    with pytest.raises(ValueError, match=r"no usable clip in any split \(usable: none\)"):
        ready_clips(path)


def test_states_are_counted_with_their_reasons():
    rows = [entry("a", "silent", "quiet"), entry("b", "silent", "still"), entry("c")]
    assert summarise(rows) == "1 ready, 2 silent (quiet and 1 other reasons)"


FIELDS = {"x": ("float16", (3, 2)), "y": ("int16", ()), "z": ("uint8", (4,)), "w": ("float32", (1,))}


def arrays(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 200, (rows, *shape)).astype(dtype) for name, (dtype, shape) in FIELDS.items()}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 5))
def test_shards_give_back_what_went_in(tmp_path_factory, sizes, rows_per_shard):
    directory = tmp_path_factory.mktemp("shards")
    total = sum(sizes)
    data, ids = arrays(total), [f"clip {i} é" for i in range(total)]
    with ShardWriter(directory, "train", FIELDS, rows_per_shard) as writer:
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            writer.append(ids[part], **{name: array[part] for name, array in data.items()})
            start += size
    got_ids, got = read_arrays(directory, "train")
    assert got_ids == ids
    for name, array in data.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
    assert len(list(directory.iterdir())) == max(1, -(-total // rows_per_shard))


def test_same_rows_give_same_bytes_however_appended(tmp_path):
    data, ids = arrays(7), list("abcdefg")
    for name, step in (("one", 7), ("two", 2)):
        with ShardWriter(tmp_path / name, "val", FIELDS, 3, {"made": "with"}) as writer:
            for i in range(0, 7, step):
                writer.append(ids[i : i + step], **{key: a[i : i + step] for key, a in data.items()})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert pq.read_schema(tmp_path / "one" / "val-00000.parquet").metadata == {b"made": b"with"}


def test_columns_can_be_chosen_and_one_shard_is_not_copied(tmp_path):
    with ShardWriter(tmp_path, "test", FIELDS, 10) as writer:
        writer.append(list("abc"), **arrays(3))
    _, got = read_arrays(tmp_path, "test", ["x"])
    assert list(got) == ["x"]
    assert not got["x"].flags.owndata


def test_caller_may_reuse_its_buffer(tmp_path):
    buffer = np.zeros((2, 1), np.float32)
    with ShardWriter(tmp_path, "test", {"w": ("float32", (1,))}, 10) as writer:
        writer.append(["a", "b"], w=buffer)
        buffer[:] = 9
    assert not read_arrays(tmp_path, "test")[1]["w"].any()


def test_writer_refuses_wrong_arrays(tmp_path):
    with ShardWriter(tmp_path, "test", {"w": ("float32", (1,))}, 10) as writer:
        with pytest.raises(ValueError, match=r"w: expected float32 \(1, 1\), got float64"):
            writer.append(["a"], w=np.zeros((1, 1)))
        with pytest.raises(ValueError, match="expected the fields"):
            writer.append(["a"], v=np.zeros((1, 1), np.float32))
    with pytest.raises(ValueError, match="dtype 'float64'"):
        ShardWriter(tmp_path, "test", {"w": ("float64", (1,))}, 10)


def test_second_writing_leaves_no_old_shard(tmp_path):
    for rows in (9, 2):
        with ShardWriter(tmp_path, "test", FIELDS, 2) as writer:
            writer.append([str(i) for i in range(rows)], **arrays(rows))
    assert len(read_arrays(tmp_path, "test")[0]) == 2


def test_reader_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no shards of split 'test' \(it has no shards\)"):
        read_arrays(tmp_path, "test")
    with ShardWriter(tmp_path, "train", FIELDS, 1) as writer:
        writer.append(list("abc"), **arrays(3))
    with pytest.raises(ValueError, match="it has train"):
        read_arrays(tmp_path, "test")
    with pytest.raises(ValueError, match="no column v; it has x, y, z, w"):
        read_arrays(tmp_path, "train", ["v"])
    (tmp_path / "train-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"train-00001\.parquet is missing"):
        read_arrays(tmp_path, "train")
    pq.write_table(pa.table({"clip_id": ["b"]}), tmp_path / "train-00001.parquet")
    with pytest.raises(ValueError, match="lacks x, y, z, w"):
        read_arrays(tmp_path, "train")
