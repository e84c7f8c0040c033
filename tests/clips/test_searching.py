"""What people's folders hold besides videos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from specmaskfoley.clips.folder import find_videos
from specmaskfoley.clips.searching import VIDEOS, files_below
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.probe import probe


def put(root: Path, name: str, data: bytes = b"\0\0\0\x18ftyp") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def names(root: Path) -> list[str]:
    return [path.as_posix() for path in files_below(root, VIDEOS)]


def test_hidden_files_and_text_are_no_videos(tmp_path):
    packets = (b"\x47" + b"\xff" * 187) * 3
    for name in ("clip.mp4", "._clip.mp4", ".trash/a.mp4", "b/C.MOV", "notes.txt"):
        put(tmp_path, name)
    put(tmp_path, "app.ts", b"import { x } from './y';\n" * 40)
    put(tmp_path, "wide.mts", ("// " + "\N{HIRAGANA LETTER A}" * 400).encode())
    put(tmp_path, "recording.ts", packets)
    put(tmp_path, "camera.mts", b"\0\0\0\0" + packets)
    put(tmp_path, "empty.ts", b"")
    assert names(tmp_path) == ["b/C.MOV", "camera.mts", "clip.mp4", "empty.ts", "recording.ts"]


def test_links_to_directories_are_followed_once(tmp_path):
    put(tmp_path / "disk", "far/a.mp4")
    put(tmp_path / "mine", "near/b.mp4")
    mine = tmp_path / "mine"
    (mine / "far").symlink_to(tmp_path / "disk" / "far")
    (mine / "again").symlink_to(tmp_path / "disk" / "far")
    (mine / "loop").symlink_to(mine)
    (mine / "also").symlink_to(mine / "near")
    assert names(mine) == ["again/a.mp4", "near/b.mp4"]
    (tmp_path / "door").symlink_to(mine)
    assert names(tmp_path / "door") == ["again/a.mp4", "near/b.mp4"]


def test_links_to_nothing_are_listed_and_pipes_are_not(tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert names(tmp_path) == ["gone.mp4"]
    assert find_videos(tmp_path) == {"gone": Path("gone.mp4")}  # a row of the ledger, which says:
    with pytest.raises(MediaError, match="a link to a file that does not exist") as caught:
        probe(tmp_path / "gone.mp4")
    assert caught.value.state == "missing"
