"""Which files of a folder are results, and what must not be replaced by new ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.storage.files import sha256, sha256_text, write_json
from specmaskfoley.storage.results import fitted, in_the_way, is_result, staging, sweep, text_name


def write_results(folder: Path, name: str, video_sha256: str = "1") -> list[Path]:
    """As `Take.save` writes them."""
    sound, video, record = (folder / f"{name}{suffix}" for suffix in (".flac", ".mp4", ".json"))
    sound.write_bytes(b"sound")
    video.write_bytes(b"video")
    files = {
        "audio": text_name(sound), "audio_sha256": sha256(sound),
        "video": text_name(video), "video_sha256": sha256(video),
    }  # fmt: skip
    write_json(record, {"video": {"name": "clip.mov", "sha256": video_sha256}, "history": [{}], "files": files})
    return [sound, video, record]


def kept(files: list[Path], *inputs: Path, overwrite: bool = False, video_sha256: str = "1") -> list[str]:
    """Names of what must stay."""
    found = in_the_way(files, lambda: video_sha256, inputs, overwrite=overwrite)
    return sorted({Path(sentence.split(" is ")[0].split(" would ")[0]).name for sentence in found})


def test_results_of_the_same_video_may_be_replaced(tmp_path: Path):
    files = write_results(tmp_path, "clip v1.0")
    assert all(is_result(file) for file in files[:2])
    assert kept(files) == []
    assert kept(files, video_sha256="2") == [file.name for file in sorted(files)]
    assert kept(files, video_sha256="2", overwrite=True) == []


def test_a_record_beside_its_own_video_makes_no_result_of_it(tmp_path: Path):
    sound, video, _ = write_results(tmp_path, "clip", video_sha256=sha256_text(b"video"))
    sound.unlink()
    assert not is_result(video)
    video.write_bytes(b"with another sound")
    assert is_result(video)


def test_what_the_user_changed_since_is_the_users(tmp_path: Path):
    files = write_results(tmp_path, "clip")
    files[0].write_bytes(b"sound, edited by hand")
    assert kept(files) == ["clip.flac"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"no JSON", b"\xff\xfe", b"[" * 100_000, b'{"files": {}, "video": {}}',
     b'{"files": "clip.flac", "video": {"sha256": "1"}, "history": []}'],
)  # fmt: skip
def test_other_json_files_are_no_records(tmp_path: Path, content: bytes):
    files = write_results(tmp_path, "clip")
    files[2].write_bytes(content)
    assert not is_result(files[1])
    assert kept(files) == ["clip.flac", "clip.json", "clip.mp4"]


def test_an_input_stays_whatever_is_said(tmp_path: Path):
    files = write_results(tmp_path, "clip")
    linked = tmp_path / "linked.mp4"
    os.link(files[1], linked)
    assert kept(files, linked, overwrite=True) == ["clip.mp4"]
    assert kept(files, tmp_path / "gone.mp4", overwrite=True) == []


def test_folders_and_dangling_links_stay(tmp_path: Path):
    (tmp_path / "clip.flac").mkdir()
    (tmp_path / "clip.mp4").symlink_to("nowhere")
    files = [tmp_path / "clip.flac", tmp_path / "clip.mp4", tmp_path / "clip.json"]
    assert kept(files) == ["clip.flac", "clip.mp4"]
    assert kept(files, overwrite=True) == ["clip.flac"]


def test_a_name_that_is_too_long_is_not_free(tmp_path: Path):
    with pytest.raises(OSError, match="too long"):
        kept([tmp_path / ("x" * 256)])


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), max_size=300), st.integers(1, 64))
def test_names_fit_and_stay_apart(name: str, candidates: int):
    more = f".{candidates}"
    short = fitted(name, more)
    assert len(os.fsencode(f"{short}{more}.flac")) <= 255
    short.encode()
    assert short == name or (name.startswith(short[:-9]) and fitted(f"{name}!", more) != short)


def test_names_are_not_cut_where_they_fit():
    assert fitted("音" * 80) == "音" * 80
    assert fitted("x" * 250) == "x" * 250
    assert fitted("x" * 251)[:-9] == "x" * 241


def test_a_folder_in_use_is_not_swept(tmp_path: Path):
    with staging(tmp_path) as folder:
        (folder / "sound.flac").touch()
        sweep(tmp_path)
        assert (folder / "sound.flac").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom specmaskfoley.storage.results import staging\n"
        "with staging(Path(sys.argv[1])) as folder:\n    (folder / 'made.mp4').touch()\n"
        "    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sweep(tmp_path)
        assert list(tmp_path.glob(".tmp*/made.mp4"))
        process.send_signal(signal.SIGKILL)
    (tmp_path / ".tmp-foley-notes").mkdir()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-foley-notes"], "only what has a lock is a run's"
