"""Words for many videos: tables of prompts, texts beside videos, and what is made already."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from helpers.untrained import write_noise
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from specmaskfoley.commands.existing import Existing
from specmaskfoley.commands.generate import Options, Work
from specmaskfoley.commands.main import app
from specmaskfoley.commands.prompt_list import read_rows, text_beside
from specmaskfoley.settings import Params


def generate(model: Path, *arguments: object) -> Result:
    command = ["generate", "--model", str(model), "--steps", "1", *map(str, arguments)]
    return CliRunner().invoke(app, command)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("videos") / "short.mp4", 0.4)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, *rows: list[str], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_fifty_rows_of_which_ten_are_wrong(model: Path, short: Path, home: Path) -> None:
    """What spreadsheets write: a BOM, semicolons, quotes; the wrong rows are named, the others made, and made once."""
    (home / "table" / "in").mkdir(parents=True)
    names = [f"{number} Hündchen.mp4" for number in range(2, 50)]
    for name in names:
        shutil.copy(short, home / "table" / "in" / name)
    rows = [[f"in/{name}", 'ein "lautes" Bellen; kläfft', "", str(number)] for number, name in enumerate(names, 2)]
    rows[3][0] = "in/gone.mp4"
    rows[8][1] = ""
    rows[13].append("a cell too many")
    rows[18] = list(rows[17])
    rows[23][3] = "-1"
    rows[28][0] = "in"
    rows[33][0] = ""
    rows[38][1] = "0-3: footsteps; 2-5: door"
    rows[43][1] = "7-9: after its end"
    rows.append(["in/2 Hündchen.mp4", "0-0.2: a\n0.2-1: b", "music", "2"])  # another text: another sound
    rows.append(["in/3 Hündchen.mp4", 'ein "lautes" Bellen; kläfft', "", "3"])  # the same as row 3
    table = write(
        home / "table" / "list.csv", ["Video", "Text", " negative", "seed"], *rows, delimiter=";", encoding="utf-8-sig"
    )
    result = generate(model, "--prompts", table, "--out", "out")
    assert result.exit_code == 1, result.output
    errors = [line.removeprefix("error: ") for line in result.stderr.splitlines()]
    expected = {
        5: "in/gone.mp4: no such file",
        10: "text is empty; say what is heard",
        15: "has 5 cells for 4 columns",
        20: "the same as row 19",
        25: "seed -1: expected a whole number",
        30: "in: is a folder",
        35: "name a video; or, for a sound without one, give",
        40: "text 0-3: the next part begins before its end",
        45: "text 7-9: the sound ends at 0.40 s",
        51: "the same as row 3",
    }
    told = {int(line.split()[1].rstrip(":")): line for line in errors}
    assert told.keys() == expected.keys(), errors
    assert len(errors) == 10
    for number, said in expected.items():
        assert said in told[number]
    assert len(list((home / "out").glob("*.mp4"))) == 40
    first = record(home / "out" / "4 Hündchen.json")["history"][0]
    assert first["text"] == 'ein "lautes" Bellen; kläfft'
    assert first["sampling"]["seed"] == 4
    second = record(home / "out" / "2 Hündchen-2.json")["history"][0]
    assert (second["text"], second["negative"]) == ([[0, 0.2, "a"], [0.2, 1, "b"]], "music")

    before = state(home / "out")
    again = generate(model, "--prompts", table, "--out", "out", "--skip-existing")
    assert again.exit_code == 1, "ten rows are still wrong"
    assert again.stdout.count("made already") == 40
    assert "model:" not in again.stdout
    assert state(home / "out") == before


def test_what_has_no_row_goes_by_the_options_and_cells_take_their_place(model: Path, short: Path, home: Path) -> None:
    for name in ("d/sub/a.mp4", "d/b.mp4", "d/c.mp4"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(short, home / name)
    shutil.copy(short, home / "like.mp4")
    table = write(
        home / "p.tsv",
        ["text", "video", "like", "duration", "seed"],
        ["", "d/sub/a.mp4", "", "", "5"],
        ["", "d/b.mp4", "like.mp4", "", ""],
        ["a bell", "", "", "0.5", ""],
        [],
        ["rain", "", "", "", ""],
        ["dog", "d/broken.mp4", "", "", ""],
        ["dog", "d/c.mp4", "", "1", ""],
        delimiter="\t",
    )
    result = generate(
        model, "--prompts", table, "d", "--text", "hammering nail", "--seed", "1", "--duration", "0.7", "--out", "out"
    )
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines() == [
        "error: row 7: d/broken.mp4: no such file",
        "error: row 8: duration 1 is for sounds without video; leave it out, or the video",
    ]
    made = {path.stem: record(path)["history"][0] for path in (home / "out").rglob("*.json")}
    assert made.keys() == {"a", "b", "a-bell", "rain"}
    assert (home / "out" / "sub" / "a.mp4").exists(), "where the folder has it"
    assert (made["a"]["text"], made["a"]["sampling"]["seed"]) == ("hammering nail", 5)
    assert (made["b"]["text"], made["b"]["like"]["name"], made["b"]["sampling"]["seed"]) == ("", "like.mp4", 1)
    assert [made[name]["duration_s"] for name in ("a-bell", "rain")] == [0.5, 0.7]
    assert not (home / "out" / "rain.mp4").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "its first row is empty"),
        (b"video,text\n", "no rows below the header"),
        (b"video,txt,text\na.mp4,b,c\n", "its first row has 'txt'; the first row names columns once each: video, text"),
        (b"video,text,Video\na,b,c\n", "'video'"),
        (b"a.mp4,rain\n", "'a.mp4', 'rain'"),
        ("video;text\n".encode("utf-16"), "not a table of UTF-8 text"),
        (b"\0" * 100, "not a table of UTF-8 text"),
    ],
)
def test_a_table_that_is_none(model: Path, home: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (home / "p.csv").write_bytes(content)
    result = generate(model, "--prompts", "p.csv", "--out", "out")
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2
    assert line.startswith("error: --prompts p.csv: ")
    assert said in line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--record", "a.json"], "--record a.json is of one video; leave out --prompts"),
        (["--from-audio", "a.wav"], "--from-audio a.wav is of one video; leave out --prompts"),
        (["--skip-existing", "--only", "0-1"], "--skip-existing is for new sounds"),
    ],
)
def test_options_that_go_with_no_table(model: Path, home: Path, option: list[str], said: str) -> None:
    write(home / "p.csv", ["text", "duration"], ["rain", "1"])
    result = generate(model, "--prompts", "p.csv", "--out", "out", *option)
    assert result.exit_code == 2
    assert said in result.stderr


def test_rows_that_csv_cannot_read_are_named_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(
        b'text,duration\nrain,1\n"a"b,1\n\ncaf\xe9,1\n"two\nlines",2\nbell,"2,5"\n"open,1\nnever read,1\n'
    )
    rows = read_rows(tmp_path / "p.csv")
    assert [(row.number, row.text) for row in rows if not row.problem] == [(2, "rain"), (6, "two\nlines")]
    wrong = {row.number: row.problem for row in rows if row.problem}
    assert wrong.keys() == {3, 5, 7, 8}
    assert wrong[3].startswith("cannot be read: ")
    assert wrong[5] == "is not UTF-8; save the table as CSV with UTF-8"
    assert wrong[7] == "duration 2,5: expected seconds, such as 2.5"
    assert wrong[8].endswith("it takes 2 lines"), "what the open quote swallows is told"


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(str.strip)
ROWS = st.lists(st.tuples(WORDS, WORDS, st.integers(0, 10**9), st.floats(0, 1e9)), min_size=1)


@given(
    ROWS, st.permutations(["text", "negative", "seed", "duration"]), st.sampled_from(",;\t"),
    st.sampled_from(["\r\n", "\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.booleans(),
)  # fmt: skip
def test_tables_of_any_dialect_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, int, float]],
    columns: list[str],
    delimiter: str,
    end: str,
    quoting: Any,
    bom: bool,
) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator=end, quoting=quoting)
    table.writeheader()
    table.writerows(dict(zip(("text", "negative", "seed", "duration"), row, strict=True)) for row in rows)
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    found = read_rows(path)
    assert [row.problem for row in found] == [""] * len(rows)
    assert [(row.text, row.negative, row.seed, row.duration_s) for row in found] == rows
    assert [row.number for row in found] == list(range(2, len(rows) + 2))


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"text\n" + data)
    said = ""
    try:
        rows = read_rows(path)
    except ValueError as error:
        rows, said = [], str(error)
    assert len(said.splitlines()) == (not rows)


# ---- texts beside videos ----


@pytest.mark.parametrize(
    ("content", "text", "said"),
    [
        (b"\xef\xbb\xbf\n  a dog \nmore of it", "a dog", "its text is that of clip.txt: a dog"),
        (b"0-1: door\n\n1-2:rain\n", [(0, 1, "door"), (1, 2, "rain")], "its text is that of clip.txt: door; rain"),
        (b"0-1: door\nrain\n", "", "clip.txt is not its text: text 'rain': one of several"),
        (b"0-1: door\n0-2: rain\n", "", "clip.txt is not its text: text 0-1: the next part begins before its end"),
        (b"0 0.51 0.32 0.1 0.1\n1 0.2 0.1 0.1 0.1", "", "clip.txt has no words, and so is not its text"),
        (b"", "", "clip.txt has no words, and so is not its text"),
        (b"caf\xe9", "", "clip.txt is not UTF-8, and so not its text"),
        (b"rain " * 2001, "", "clip.txt is larger than 10 kB, and so not its text"),
        (None, "", ""),
    ],
)
def test_a_text_beside_a_video(tmp_path: Path, content: bytes | None, text: object, said: str) -> None:
    if content is not None:
        (tmp_path / "clip.txt").write_bytes(content)
    (tmp_path / "clip.mp4.txt").write_text("another")
    found, sentence = text_beside(tmp_path / "clip.mp4")
    assert found == text
    assert sentence.startswith(said)
    assert bool(sentence) == bool(said)


def test_it_is_used_where_nothing_else_says_what_is_heard(model: Path, short: Path, home: Path) -> None:
    for name in ("in/a.mp4", "in/b.mp4"):
        (home / name).parent.mkdir(exist_ok=True)
        shutil.copy(short, home / name)
    (home / "in" / "a.txt").write_text("playing drum\n")
    (home / "in" / "b.txt").mkdir()
    result = generate(model, "in", "--out", "in")
    assert result.exit_code == 2, "results beside their videos would take their place"
    result = generate(model, "in", "--out", "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "a.mp4: its text is that of a.txt: playing drum"
    assert [record(home / "out" / f"{name}.json")["history"][0]["text"] for name in "ab"] == ["playing drum", ""]
    result = generate(model, "in", "--out", "out", "--text", "church bell")
    assert "a.txt" not in result.stdout
    assert record(home / "out" / "a.json")["history"][0]["text"] == "church bell"
    result = generate(model, "in", "--out", "out", "--text", "")
    assert "a.txt" not in result.stdout
    assert record(home / "out" / "a.json")["history"][0]["text"] == ""
    table = write(home / "p.csv", ["video", "text"], ["in/a.mp4", ""])
    assert generate(model, "--prompts", table, "--out", "out").exit_code == 0, "the text beside it says what"
    made = record(home / "out" / "a.json")
    result = generate(model, "--prompts", table, "--out", "alone", "--text", "")
    assert result.exit_code == 0, "the video alone decides"
    assert record(home / "alone" / "a.json")["history"][0]["text"] == ""
    assert made["history"][0]["text"] == "playing drum"
    again = ["in/a.mp4", "--record", "out/a.json", "--out", "again", "--model", str(model)]
    assert CliRunner().invoke(app, ["generate", *again]).exit_code == 0
    assert record(home / "again" / "a.json")["files"]["audio_sha256"] == made["files"]["audio_sha256"]


# ---- what is made already ----


OPTIONS: list[tuple[list[str], dict[str, Any]]] = [
    (["--seed", "3"], {"sampling": {"steps": 1, "seed": 3}}),
    (
        ["--text", "0-0.2: a; 0.2-1: b", "--negative", "music"],
        {"text": [(0, 0.2, "a"), (0.2, 1, "b")], "negative": "music"},
    ),
    (["--like", "like.mp4", "--format", "wav"], {"like": Path("like.mp4"), "format": "wav"}),
    (["--candidates", "2", "--text", "rain"], {"candidates": 2, "text": "rain"}),
]
OTHERS: list[dict[str, Any]] = [
    {}, {"text": "door"}, {"text": [(0, 0.2, "a"), (0.2, 1, "c")], "negative": "music"}, {"negative": "speech"},
    {"text": [(0, 0.2, "a"), (0.2, 1, "b")]}, {"like": Path("other.mp4"), "format": "wav"},
    {"like": Path("like.mp4")}, {"sampling": {"steps": 1, "seed": 4}}, {"sampling": {"steps": 2, "seed": 3}},
    {"sampling": {"steps": 1, "seed": 3, "scale": 2.0}}, {"candidates": 3, "text": "rain"},
    {"candidates": 2, "text": "rain", "sampling": {"steps": 1, "seed": 1}}, {"picture": "encode"},
    {"keep_original_audio": "mix"}, {"audio_track": 1},
]  # fmt: skip


def test_what_is_there_is_what_another_run_would_make(model: Path, short: Path, home: Path) -> None:
    shutil.copy(short, "a.mp4")
    for seconds, name in ((0.5, "like.mp4"), (0.6, "other.mp4")):
        write_noise(home / name, seconds)
    params = Params.load(model / "params.yaml")
    options = [{"sampling": {"steps": 1}} | given for given in [given for _, given in OPTIONS] + OTHERS]

    def there(given: dict[str, Any], made: Existing) -> bool:
        targets = [Path("out/a"), *(Path(f"out/a.{number}") for number in range(2, 1 + given.get("candidates", 1)))]
        return made.has(Work(Path("a.mp4"), Path("a.mp4"), Options(**given), targets=tuple(targets)))

    for number, (arguments, _) in enumerate(OPTIONS):
        result = generate(model, "a.mp4", "--out", "out", "--overwrite", *arguments)
        assert result.exit_code == 0, result.output
        found = [index for index, given in enumerate(options) if there(given, Existing(params, model))]
        assert found == [number], arguments

    def unlike(path: str, content: bytes | None) -> bool:
        before = Path(path).read_bytes()
        Path(path).unlink() if content is None else Path(path).write_bytes(content)
        found = there(options[number], Existing(params, model))
        Path(path).write_bytes(before)
        return not found and there(options[number], Existing(params, model))

    assert unlike("a.mp4", short.read_bytes() + b"more")
    for name in ("a.flac", "a.2.flac", "a.mp4", "a.2.mp4", "a.json", "a.2.json"):
        assert unlike(f"out/{name}", None), name
        for content in (b"", b"{}", b"[]", b"another"):
            assert unlike(f"out/{name}", content), name
    whole = record(Path("out/a.json"))
    (first,) = whole["history"]
    said = {name: value for name, value in first.items() if name != "duration_s"}
    edited = {"history": [first, said | {"operation": "regenerate", "only": [[0.0, 0.2]]}]}
    for changed in (edited, {"files": {}}, {"model": whole["model"] | {"codec.safetensors": "0"}}, {"video": None}):
        assert unlike("out/a.json", json.dumps(whole | changed).encode()), changed
    machine = whole["settings"]["run"] | {"device": "cuda", "threads": 64}
    elsewhere = whole | {"settings": whole["settings"] | {"run": machine}}
    assert not unlike("out/a.json", json.dumps(elsewhere).encode()), "made on another machine"
    other = params.model_copy(update={"vocoder": params.vocoder.model_copy(update={"iterations": 99})})
    assert not there(options[number], Existing(other, model)), "another vocoder"


def test_where_nothing_is_left_to_do_torch_is_not_imported(model: Path, short: Path, home: Path) -> None:
    write(home / "p.csv", ["text", "duration"], ["rain", "0.5"])
    arguments = [str(short), "--prompts", "p.csv", "--out", "out", "--skip-existing", "--candidates", "2"]
    first = generate(model, *arguments)
    assert first.exit_code == 0, first.output
    before = state(home / "out")
    command = [sys.executable, "-X", "importtime", "-m", "specmaskfoley.commands.main", "generate", "--steps", "1"]
    done = subprocess.run(
        [*command, "--model", str(model), *arguments], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "rain: made already -> out/rain.flac", "short.mp4: made already -> out/short.flac",
    ]  # fmt: skip
    assert " torch" not in done.stderr
    assert state(home / "out") == before
