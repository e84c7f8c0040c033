"""`specmaskfoley ledger`: what became of every clip, and how two data sets differ."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from specmaskfoley.clips.ledger import ready_hash
from specmaskfoley.commands.main import app
from specmaskfoley.storage.tables import LEDGER_SCHEMA, USABLE_SCHEMA, write_table


def row(
    clip_id: str, split: str | None = "train", state: str = "ready", reason: str = "", **more: Any
) -> dict[str, Any]:
    known = {"path": f"{clip_id}.mp4", "label": "dog, barking", "source": "youtube", "events": None}
    measured = {"sha256": f"sum of {clip_id}", "padded_s": 0.0, "decoder": "PyAV 16"} if state == "ready" else {}
    return {"clip_id": clip_id, "split": split, "state": state, "reason": reason, **known, **measured, **more}


ROWS = [
    row("a"),
    row("b", padded_s=1.5, padding="hold", events=[0.5, 1.0]),
    row("c", "test"),
    row("d", "test", "silent", "peak of -71 dBFS is below prepare.silence_db=-60"),
    row("e", "train", "silent", "peak of -75 dBFS is below prepare.silence_db=-60"),
    row("f", "train", "silent", "peak of -inf dBFS is below prepare.silence_db=-60"),
    row("g", "val", "removed", "This video has been\nremoved by the\x1b[31m uploader"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data" / "ledger.parquet", ROWS, LEDGER_SCHEMA)
    return tmp_path


def told(folder: Path, *arguments: object) -> Result:
    command = ["ledger", *map(str, arguments), "--params", str(folder / "params.yaml")]
    return CliRunner().invoke(app, command)


def cells(result: Result) -> list[list[str]]:
    return [line.split() for line in result.output.splitlines()]


def other(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "other.parquet"
    write_table(path, rows, LEDGER_SCHEMA)
    return path


def test_the_ledger_of_the_settings_is_summed_up(folder: Path) -> None:
    result = told(folder)
    assert result.exit_code == 0, result.output
    lines = cells(result)
    assert lines[:5] == [
        ["state", "train", "val", "test", "all"],
        ["ready", "2", "0", "1", "3"],
        ["removed", "0", "1", "0", "1"],
        ["silent", "2", "0", "1", "3"],
        ["all", "4", "1", "2", "7"],
    ]
    assert "private" not in result.output  # states that do not occur
    assert "usable sound: 0.00 h in 3 ready clips of 5 s" in result.output
    assert "padded: 1 ready clips, by 1.5 s together (hold 1)" in result.output
    assert "sources: youtube 7" in result.output
    assert "decoders: PyAV 16 3" in result.output
    assert ["train", "2", hashlib.sha256(b"a\nb\n").hexdigest()[:16]] in lines
    assert ["test", "1", hashlib.sha256(b"c\n").hexdigest()[:16]] in lines


def test_usable_sound_is_what_the_model_hears_less_the_padding(folder: Path) -> None:
    rows = [row(str(number), padded_s=1.4) for number in range(1000)]
    rows += [row("longer", duration_s=3600.0), row("nothing", padded_s=9.0, padding="hold")]
    write_table(folder / "data" / "ledger.parquet", rows, LEDGER_SCHEMA)
    assert "usable sound: 1.00 h in 1002 ready clips" in told(folder).output


def test_reasons_that_differ_in_numbers_are_one_kind(folder: Path) -> None:
    result = told(folder)
    silent = [
        line.split(maxsplit=2) for line in result.output.splitlines() if line.startswith("silent") and "of" in line
    ]
    assert silent == [["silent", "3", "peak of -71 dBFS is below prepare.silence_db=-60"]]
    assert "\x1b" not in result.output
    assert "This video has been removed by the" in result.output


def test_rare_kinds_of_reasons_are_counted_together(folder: Path) -> None:
    rows = [
        row(f"{name}{number}", state="failed", reason=f"{name}ly") for name in "vwxyz" for number in range(ord(name))
    ]
    write_table(folder / "data" / "ledger.parquet", rows, LEDGER_SCHEMA)
    shown = [line for line in cells(told(folder)) if line[:1] == ["failed"]][1:]
    assert [line[2] for line in shown] == ["zly", "yly", "xly", "of"]
    assert shown[-1] == ["failed", str(ord("v") + ord("w")), "of", "2", "other", "kinds"]


def test_one_split(folder: Path) -> None:
    lines = cells(told(folder, "--split", "test"))
    assert lines[:2] == [["state", "test", "all"], ["ready", "1", "1"]]
    assert lines[3] == ["all", "2", "2"]


def test_clips_of_a_state(folder: Path) -> None:
    result = told(folder, "--state", "silent", "--state", "removed", "--split", "train")
    assert result.output.splitlines() == [
        "e\ttrain\tsilent\tpeak of -75 dBFS is below prepare.silence_db=-60",
        "f\ttrain\tsilent\tpeak of -inf dBFS is below prepare.silence_db=-60",
    ]
    assert told(folder, "--state", "corrupt").output == ""


def test_rows_as_csv(folder: Path) -> None:
    result = told(folder, "--csv", "-")
    found = list(csv.DictReader(io.StringIO(result.output)))
    assert list(found[0]) == LEDGER_SCHEMA.names
    assert [item["clip_id"] for item in found] == [item["clip_id"] for item in ROWS]
    assert found[1]["events"] == "0.5 1"
    assert found[0]["label"] == "dog, barking"
    assert found[-1]["reason"] == ROWS[-1]["reason"]

    path = folder / "tables" / "silent.csv"
    result = told(folder, "--csv", path, "--state", "silent")
    assert result.output == f"3 rows written to {path}\n"
    with path.open(encoding="utf-8", newline="") as file:
        assert [item["clip_id"] for item in csv.DictReader(file)] == ["d", "e", "f"]
    assert [item.name for item in path.parent.iterdir()] == ["silent.csv"]

    assert "usable sound" in told(folder, "--csv", path).output


def test_equal_ready_clips(folder: Path) -> None:
    again = [item | {"tries": 2, "reason": item["reason"] and "another"} for item in reversed(ROWS)]
    result = told(folder, "--compare", other(folder, again))
    assert result.exit_code == 0, result.output
    assert "the ready clips are the same" in result.output


def test_differing_ready_clips(folder: Path) -> None:
    rows = [
        row("a", sha256="another file"),
        row("b", "train", "no_audio", "the file has no sound track"),
        row("c", "val"),
        row("g", "val"),
        row("h", "val", sha256=None),
    ]
    path, table = other(folder, rows), folder / "differing.csv"
    result = told(folder, "--compare", path, "--csv", table)
    assert result.exit_code == 1, result.output
    first = folder / "data" / "ledger.parquet"
    lines = result.output.splitlines()
    at = lines.index(f"ready in {first} and not in {path}: 1")
    assert lines[at + 1] == "  b: no_audio in train: the file has no sound track"
    at = lines.index(f"ready in {path} and not in {first}: 2")
    assert lines[at + 1].startswith("  g: removed in val: This video")
    assert lines[at + 2] == "  h: no such clip there"
    at = lines.index("ready in both, in different splits: 1")
    assert lines[at + 1] == "  c: test and val"
    at = lines.index("ready in both, with different files (sha256): 1")
    assert lines[at + 1] == "  a: sum of a and another file"
    assert ["ready", "2", "1", "0", "3", "1", "0", "3", "4"] in cells(result)  # splits side by side
    with table.open(encoding="utf-8", newline="") as file:
        found = {item["clip_id"]: item for item in csv.DictReader(file)}
    assert {clip: item["difference"] for clip, item in found.items()} == {
        "a": "file", "b": "only_1", "c": "split", "g": "only_2", "h": "only_2",
    }  # fmt: skip
    assert found["b"]["state_2"] == "no_audio"

    assert told(folder, "--compare", path, "--split", "test").exit_code == 1
    moved = told(folder, "--compare", path, "--split", "val").output
    assert f"ready in {path} and not in {first}: 3" in moved
    assert "  c: ready in test" in moved


def test_a_changed_file_alone_leaves_the_ready_clips_the_same(folder: Path) -> None:
    result = told(
        folder, "--compare", other(folder, [row("a", sha256="new"), *ROWS[1:2], row("c", "test", sha256=None)])
    )
    assert result.exit_code == 0, result.output
    assert "with different files (sha256): 1" in result.output
    assert "without a sha256 to compare: 1" in result.output


def test_ten_of_many_differing_clips_are_shown(folder: Path) -> None:
    result = told(folder, "--compare", other(folder, [*ROWS, *(row(f"more{number:02d}") for number in range(12))]))
    assert "  more09: no such clip there" in result.output
    assert "more10" not in result.output
    assert "  and 2 more; --csv FILE writes all" in result.output


def test_a_table_of_the_ready_clips_can_be_compared(folder: Path) -> None:
    write_table(folder / "usable.parquet", [item for item in ROWS if item["state"] == "ready"], USABLE_SCHEMA)
    assert told(folder, folder / "usable.parquet", "--compare", folder / "data" / "ledger.parquet").exit_code == 0


def test_an_empty_ledger_and_clips_without_a_split(folder: Path) -> None:
    write_table(folder / "empty", [], LEDGER_SCHEMA)
    write_table(folder / "unstated", [row("a", None)], LEDGER_SCHEMA)
    assert "no clip is ready" in told(folder, folder / "empty").output
    assert ["unstated", "1", ready_hash(["a"])] in cells(told(folder, folder / "unstated"))
    result = told(folder, folder / "empty", "--compare", folder / "unstated")
    assert result.exit_code == 1, result.output
    assert told(folder, folder / "empty", "--compare", folder / "empty").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["absent.parquet"], "absent.parquet: no such file"),
        (["params.yaml"], "params.yaml: not a readable Parquet file"),
        (["other.parquet"], "other.parquet: the clip a has more than one row"),
        (["--split", "dev"], "--split dev is not one of train, val, test"),
        (["--state", "quiet"], "--state quiet is not one of ready"),
        (["--state", "silent", "--compare", "other.parquet"], "leave it out with --compare"),
        (["--csv", "data"], "--csv data: a directory"),
        (["--params", "none.yaml"], "none.yaml: no such file"),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(folder)
    other(folder, [row("a"), row("b"), row("a")])
    result = CliRunner().invoke(app, ["ledger", *arguments])
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert expected in result.output
    assert len(result.output.splitlines()) == 1


def test_another_table_is_refused(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"clip_id": ["a"]}), folder / "other.parquet")
    assert "no column path" in told(folder, folder / "other.parquet").output
    rows = pa.Table.from_pylist(ROWS, LEDGER_SCHEMA)
    at = LEDGER_SCHEMA.get_field_index("padded_s")
    pq.write_table(rows.set_column(at, "padded_s", rows["padded_s"].cast(pa.string())), folder / "other.parquet")
    assert "column padded_s is string, not double" in told(folder, folder / "other.parquet").output


IDS = st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=1), unique=True)


@given(IDS, st.randoms(use_true_random=False))
def test_the_hash_of_the_ready_clips_is_of_the_set(clip_ids: list[str], order: random.Random) -> None:
    shuffled = order.sample(clip_ids, len(clip_ids))
    assert ready_hash(shuffled) == ready_hash(clip_ids)
    if clip_ids:
        other_ids = [clip_ids[0] + "_", *clip_ids[1:]]
        assert set(other_ids) == set(clip_ids) or ready_hash(other_ids) != ready_hash(clip_ids)
        assert ready_hash(clip_ids[1:]) != ready_hash(clip_ids)
