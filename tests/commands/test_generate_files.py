"""`specmaskfoley generate`: nothing of the user's is lost, and what is refused is refused before any work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT
from helpers.small_disk import small_disk
from helpers.untrained import write_noise
from typer.testing import CliRunner, Result

from specmaskfoley.commands.generate import _say
from specmaskfoley.commands.main import app
from specmaskfoley.media.sound import scratch_array
from specmaskfoley.media.writing import write_audio

COMMAND = [sys.executable, "-m", "specmaskfoley.commands.main", "generate"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def generate(model: Path, *arguments: object, charset: str = "utf-8") -> Result:
    command = ["generate", "--model", str(model), "--steps", "1", *map(str, arguments)]
    return CliRunner(charset=charset).invoke(app, command)


def state(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def refused(result: Result) -> str:
    """The one line."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("videos") / "short.mp4", 1.0)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("videos") / "long.mp4", 60.0, fps=1)


@pytest.fixture
def no_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings alone: what gets as far as the model ends with "no such model"."""
    folder = tmp_path_factory.mktemp("no-model")
    text = (model / "params.yaml").read_text(encoding="utf-8").replace(str(model), "gone")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- what is in the way ----


def test_neighbours_stay_unless_told_and_own_results_are_replaced(model: Path, no_model: Path, short: Path, home: Path):
    shutil.copy(short, "clip.mov")
    for name in ("clip.mp4", "clip.flac", "clip.json"):
        Path(name).write_text("mine")
    before = state(home)
    line = refused(generate(no_model, "clip.mov", "--out", "."))
    assert all(f"{name} is there" in line for name in ("clip.mp4", "clip.flac", "clip.json"))
    assert state(home) == before
    assert generate(model, "clip.mov", "--out", ".", "--overwrite").exit_code == 0
    made = state(home)
    assert {name for name in before if before[name] != made[name]} == {"clip.mp4", "clip.flac", "clip.json"}
    assert generate(model, "clip.mov", "--out", ".", "--seed", "1").exit_code == 0
    assert state(home)["clip.flac"] != made["clip.flac"]
    Path("clip.flac").write_text("edited by hand")
    assert "clip.flac is there" in refused(generate(no_model, "clip.mov", "--out", "."))
    write_noise(home / "clip.mov", 0.5)
    assert "clip.mp4 is there" in refused(generate(no_model, "clip.mov", "--out", ".")), "another video by now"


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        (["a.mov", "a.mp4"], [".", "--out", "."]),
        (["a.mp4"], ["a.mp4", "--out", "."]),
        (["clip.mp4"], ["clip.mp4", "--from-audio", "made/clip.wav", "--format", "wav", "--out", "made"]),
        (["a.mp4", "made/a.mp4"], ["a.mp4", "made/a.mp4", "--out", "made"]),
        (["a.mp4", "b.mp4"], ["a.mp4", "link.mp4", "--out", "."]),
    ],
)  # fmt: skip
def test_an_input_is_never_replaced(
    no_model: Path, short: Path, home: Path, files: list[str], arguments: list[str], more: list[str]
):
    Path("made").mkdir()
    soundfile.write("made/clip.wav", np.full(8000, 0.1), 16000)
    for name in files:
        shutil.copy(short, name)
    if "b.mp4" in files:
        Path("link.mp4").symlink_to("b.mp4")
    before = state(home)
    assert "would take the place of the video or sound that is read" in refused(generate(no_model, *arguments, *more))
    assert state(home) == before


def test_a_record_is_not_replaced_by_what_it_makes(model: Path, no_model: Path, short: Path, home: Path):
    assert generate(model, short, "--out", "made").exit_code == 0
    made = CliRunner().invoke(
        app, ["generate", "--model", str(no_model), str(short), "--record", "made/short.json", "--out", "made"]
    )
    assert "made/short.json would take the place" in refused(made)


# ---- folders ----


def test_results_are_no_videos_to_sound_and_lie_in_the_same_subfolders(model: Path, short: Path, home: Path):
    for name in ("d/x.mp4", "d/sub/x.mp4", "d/sub/y.mov"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(short, name)
    assert generate(model, "d", "--out", "d/made").exit_code == 0
    first = state(home)
    names = [f"d/made/{name}{suffix}" for name in ("x", "sub/x", "sub/y") for suffix in (".flac", ".json", ".mp4")]
    assert set(first) == {"d/x.mp4", "d/sub/x.mp4", "d/sub/y.mov", *names}
    assert generate(model, "d", "--out", "d/made").exit_code == 0
    assert state(home) == first
    # results beside their video, and in the folder of another run
    Path("d/x.mp4").unlink()
    Path("d/sub/x.mp4").unlink()
    assert generate(model, "d", "--out", "d", "--format", "wav").exit_code == 0
    assert set(state(home)) - set(first) == {f"d/sub/y{suffix}" for suffix in (".wav", ".json", ".mp4")}
    Path("d/sub/y.mov").unlink()
    assert "no video in this folder, besides results" in refused(generate(model, "d", "--out", "elsewhere"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("gone", "--model gone: no such folder; name a folder that `specmaskfoley export` wrote"),
        ("weights.safetensors", "--model weights.safetensors: is a file; name a folder that"),
        (".", "--model .: has no params.yaml; name a folder that"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "web"])
def test_a_model_that_is_none(short: Path, home: Path, model: str, said: str, command: str):
    Path("weights.safetensors").write_bytes(b"\xff")
    arguments = [str(short), "--out", "out"] if command == "generate" else []
    assert said in refused(CliRunner().invoke(app, [command, *arguments, "--model", model]))
    assert not Path("out").exists()


def test_outside_of_a_project_the_option_for_a_model_is_named(short: Path, home: Path):
    assert refused(CliRunner().invoke(app, ["generate", str(short), "--out", "out"])) == (
        "error: --params params.yaml: no such file; run from the project's top directory, or name a model's folder "
        "with --model"
    )


@pytest.mark.parametrize("content", [None, b"no sound", b"whole"])
def test_what_is_wrong_with_a_given_sound_is_said_with_its_option(
    model: Path, short: Path, home: Path, content: bytes | None
):
    if content == b"whole":
        write_audio("given.wav", np.full(16000, 0.1, np.float32), 16000)
    elif content is not None:
        Path("given.wav").write_bytes(content)
    result = generate(model, short, "--out", "out", "--from-audio", "given.wav")
    assert result.exit_code in (1, 2), result.output
    (line,) = result.stderr.splitlines()
    if content == b"whole":
        assert line == (
            "error: short.mp4: --from-audio given.wav has no silent hole and is as long as the video; say which "
            "seconds to make anew with --only (only)"
        )
    else:
        assert line.startswith("error: --from-audio given.wav: ")


@pytest.mark.skipif(os.name == "nt", reason="a terminal of POSIX")
def test_a_terminal_sees_at_once_that_the_model_loads(model: Path, short: Path, home: Path):
    import pty
    import termios

    above, below = pty.openpty()
    termios.tcsetwinsize(below, (24, 80))
    command = [*COMMAND, str(short), "--model", str(model), "--steps", "1", "--out", "out"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=below, env=ENVIRONMENT) as process:
        os.close(below)
        shown = b""
        while b"loading the model ..." not in shown:
            shown += os.read(above, 1024)
        assert process.poll() is None, "it is still at it"
        try:
            while part := os.read(above, 1024):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(above)
    assert process.returncode == 0
    assert shown.index(b"looking at the videos ...") < shown.index(b"loading the model ...") < shown.index(b"short.mp4")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file", "--out file: file is a file; name a folder"),
        ("file/deeper", "file is a file"),
        ("result.mp4", "--out result.mp4: looks like a file, but a video has several results; name a folder"),
        ("deeper/result.FLAC", "looks like a file"),
        ("/proc/nothing", "/proc/nothing cannot be written to"),
        ("x" * 300, "File name too long"),
    ],
)  # fmt: skip
def test_an_out_that_is_no_folder(model: Path, short: Path, home: Path, out: str, said: str):
    if not Path("/proc/self").exists() and out.startswith("/proc"):
        pytest.skip("no /proc here")
    Path("file").write_text("mine")
    assert said in refused(generate(model, short, "--out", out))
    assert state(home) == {"file": b"mine"}


def test_a_file_where_a_subfolder_belongs(no_model: Path, short: Path, home: Path):
    Path("d/sub").mkdir(parents=True)
    shutil.copy(short, "d/sub/x.mp4")
    Path("made").mkdir()
    Path("made/sub").write_text("mine")
    assert "made/sub" in refused(generate(no_model, "d", "--out", "made"))
    assert Path("made/sub").read_text() == "mine"


@pytest.mark.parametrize("name", ["results.v1", "clip.mp4.out", "there.mp4"])
def test_other_names_of_folders_are_fine(model: Path, short: Path, home: Path, name: str):
    Path("there.mp4").mkdir()
    assert generate(model, short, "--out", name).exit_code == 0
    assert (home / name / "short.flac").exists()


# ---- full disks ----


def test_a_full_temporary_folder_costs_one_video(
    model: Path, short: Path, long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with small_disk(tmp_path / "small") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        result = generate(model, long, short, "--out", tmp_path / "out")
        with pytest.raises(OSError, match=r"no room for a temporary file of 40\.0 MB"):
            scratch_array(10_000_000)
        assert not scratch_array(1000).any()
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: long.mp4: ")
    assert "5.3 MB" in line
    assert str(disk) in line
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"short.flac", "short.mp4", "short.json"}


@pytest.mark.parametrize(
    ("free", "said"), [(10_000, "made.flac: cannot be written"), (300_000, "cannot be written: No space left")]
)
def test_a_full_results_folder_gets_nothing_or_all(model: Path, tmp_path: Path, free: int, said: str):
    large = write_noise(tmp_path / "large.mp4", 4.0)
    with small_disk(tmp_path / "small") as disk:
        (disk / "taken").write_bytes(bytes(2**20 - free))
        result = generate(model, large, "--out", disk)
        left = [path.name for path in disk.iterdir()]
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert said in line
    assert left == ["taken"]


# ---- names, and what is printed ----


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_names_of_all_lengths_and_bytes(model: Path, short: Path, home: Path):
    inbox = home / "in" / os.fsdecode(b"\xff\xfe")
    inbox.mkdir(parents=True)
    stems = ["音" * 80, "音" * 83, "音" * 83 + "a", "x" * 251, os.fsdecode(b"caf\xe9"), "\u202egpj", "a\nb"]
    for stem in stems:
        shutil.copy(short, inbox / f"{stem}.mp4")
    result = generate(model, "in", "--out", "out", "--candidates", "2", charset="ascii")
    assert result.exit_code == 0, result.output
    out = home / "out" / inbox.name
    for suffix in (".flac", ".mp4", ".json"):
        assert len(list(out.glob(f"*{suffix}"))) == 2 * len(stems)
    for stem in ("音" * 80, os.fsdecode(b"caf\xe9")):
        assert (out / f"{stem}.2.flac").exists()
    before = state(home)
    assert generate(model, "in", "--out", "out", "--candidates", "2", charset="ascii").exit_code == 0
    assert state(home).keys() == before.keys(), "the same names the next time"


def test_a_text_that_is_not_utf8(no_model: Path, short: Path, home: Path):
    assert "--text 'caf\\udce9' is not UTF-8" in refused(generate(no_model, short, "--text", "caf\udce9", "--out", "o"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_printing_where_nobody_reads_ends_nothing():
    end, begin = os.pipe()
    os.close(end)
    with os.fdopen(begin, "w") as closed:
        _say("first", closed)
        _say("second", closed)


# ---- signals ----


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.kill
def test_a_run_that_is_ended_while_it_saves_leaves_nothing(model: Path, long: Path, short: Path, tmp_path: Path):
    out = tmp_path / "out"
    for number, code in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            [*COMMAND, str(long), "--out", str(out), "--model", str(model), "--steps", "1"],
            env=ENVIRONMENT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not list(out.glob(".tmp*/.tmp*")):
            time.sleep(0.001)
        process.send_signal(number)
        assert process.wait(240) == code
        assert bool(list(out.glob(".tmp*"))) == (number == signal.SIGKILL)
        assert not list(out.glob("long.*"))
    assert generate(model, short, "--out", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["short.flac", "short.json", "short.mp4"]


# ---- the order of checks ----


@pytest.mark.parametrize(
    ("arguments", "code", "said", "looked"),
    [
        (["gone.mp4"], 2, "no such file or folder", False),
        (["text.mp4"], 1, "text.mp4: cannot be decoded", True),
        (["short.mp4", "--out", "text.mp4"], 2, "is a file", False),
        (["short.mp4", "--out", "."], 2, "would take the place", True),
        (["short.mp4", "--only", "7-9"], 1, "--only 7-9: the video ends at 1.00 s", True),
        (["silent.mp4", "--only", "0-1"], 1, "no sound to edit", True),
        (["short.mp4", "--max-duration", "0.5"], 1, "at most 0.5 s", True),
        (["short.mp4", "--record", "text.mp4"], 2, "not the record of a sound", False),
        (["short.mp4", "--record", "short.mp4"], 2, "short.mp4: not the record of a sound", False),
        (["short.mp4", "--record", "other.json"], 2, "short.mp4: not the video of the record", True),
        (["short.mp4"], 2, "control.safetensors: no such model; `dvc repro` trains it", True),
        (["short.mp4", "--from-audio", "text.mp4"], 2, "--from-audio text.mp4: cannot be decoded", True),
        (["short.mp4", "--model", "text.mp4"], 2, "text.mp4", False),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_line_and_waits_for_no_model(
    short: Path,
    other_record: Path,
    no_model: Path,
    home: Path,
    arguments: list[str],
    code: int,
    said: str,
    looked: bool,
):
    """What the arguments alone tell waits for no torch either; while a worker looks at a video, it is imported."""
    shutil.copy(short, "short.mp4")
    shutil.copy(other_record, "other.json")
    Path("text.mp4").write_text("no video")
    if "silent.mp4" in arguments:
        from specmaskfoley.media.writing import write_video

        write_video("silent.mp4", np.zeros((25, 48, 64, 3), np.uint8), 25)
    program = (
        "import sys\n"
        "from specmaskfoley.commands.main import app\n"
        "try:\n    app()\n"
        "finally:\n    print('IMPORTED', *sys.modules)\n"
    )
    defaults = ["generate", "--out", "out", "--model", str(no_model)]
    done = subprocess.run(
        [sys.executable, "-c", program, *defaults, *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert said in line
    imported = set(done.stdout.partition("IMPORTED ")[2].split())
    assert "specmaskfoley.foley.system" not in imported
    assert ("torch" in imported) == looked
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def other_record(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of another video."""
    folder = tmp_path_factory.mktemp("other")
    assert generate(model, write_noise(folder / "other.mp4", 0.5), "--out", folder / "out").exit_code == 0
    return folder / "out" / "other.json"
