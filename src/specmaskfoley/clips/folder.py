"""Source `folder`: the videos of any directory, read where they lie.

Labels and splits may be given in a TSV (`data.labels`); without one, a file's name is its label and a hash of
its clip_id decides its split, so that adding videos never moves the others. Or the directory is a copy of VGGSound:
then `data.lists` says which clips are wanted, and `data.pattern` how their files are named.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specmaskfoley.clips.listing import TEST_CLIPS, clip_row
from specmaskfoley.clips.searching import VIDEOS, files_below
from specmaskfoley.clips.tsv import read_text, tsv_lines
from specmaskfoley.clips.vggsound import Wanted, draw, list_row, wanted
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256_text
from specmaskfoley.storage.tables import LISTED, SPLITS

_MISSING: dict[str, Any] = {"state": "missing", "reason": "no such file"}


@dataclass(frozen=True)
class Label:
    """One line of the labels file."""

    clip: str
    label: str
    split: str | None
    line: int


def list_clips(params: Params) -> list[dict[str, Any]]:
    """Every video under `data.folder` and every id of `data.labels`, or every clip of `data.lists`.

    Those without a file are `missing`. `data.limit` draws some.

    Raises:
        ValueError: naming the setting or the line of the labels file that is wrong.
    """
    folder = Path(params.data.folder or "")
    if not folder.is_dir():
        raise ValueError(
            f"data.folder={params.data.folder!r} is not a directory; "
            "set it to the directory of your videos: dvc exp run -S data.folder=/path/to/videos"
        )
    return _by_lists(folder, params) if params.data.lists else _by_search(folder, params)


def _by_lists(folder: Path, params: Params) -> list[dict[str, Any]]:
    rows = []
    for item in wanted(params):
        path = folder / _file_name(item, params.data.pattern)
        rows.append(list_row(item, path, "folder", **({} if path.is_file() else _MISSING)))
    if not any(row["state"] == LISTED for row in rows):
        raise ValueError(
            f"data.pattern={params.data.pattern!r}: none of the {len(rows)} wanted clips is in {folder}; looked for "
            f"{rows[0]['path']!r} and so on"
        )
    return rows


def _file_name(item: Wanted, pattern: str) -> str:
    clip = item.clip
    fields = {
        "clip_id": clip.clip_id,
        "youtube_id": clip.youtube_id,
        "start": clip.start_s,
        "start_ms": clip.start_s * 1000,
        "end_ms": clip.end_s * 1000,
        "label": clip.label,
        "split": clip.split,
    }
    try:
        return pattern.format(**fields)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        known = ", ".join("{" + name + "}" for name in fields)
        raise ValueError(f"data.pattern={pattern!r}: {error}; it may hold {known}") from None


def _by_search(folder: Path, params: Params) -> list[dict[str, Any]]:
    videos = find_videos(folder)
    labels = read_labels(params.data.labels) if params.data.labels else []
    if not videos:
        raise ValueError(
            f"data.folder={params.data.folder!r} holds no video (looked below it for {', '.join(sorted(VIDEOS))})"
        )
    described, absent = _match(videos, labels, params.data.labels or "")
    rows: list[dict[str, Any]] = []
    for clip_id, path in videos.items():
        label = described.get(clip_id)
        text, split = (label.label, label.split) if label else (words(path.stem), None)
        rows.append(clip_row(clip_id, folder / path, text, split, "folder"))
    for label in absent:
        path = folder / label.clip
        rows.append(clip_row(_clip_id(label.clip), path, label.label, label.split, "folder", **_MISSING))
    rows.sort(key=lambda row: str(row["clip_id"]))
    assign_splits(rows, params.prepare.val_fraction, params.prepare.test_fraction)
    drawn = []
    for split in SPLITS:
        here = [row for row in rows if row["split"] == split]
        drawn += draw(here, params.data.limit_of(split), params.seed, lambda row: (row["clip_id"], row["label"]))
    return sorted(drawn, key=lambda row: str(row["clip_id"]))


def find_videos(folder: Path) -> dict[str, Path]:
    """clip_id -> path below `folder`, sorted; see `files_below`.

    A clip_id is the relative path without suffix, `/` written as `__`: it must serve as a file name later.

    Raises:
        ValueError: if two files would get one clip_id.
    """
    found: dict[str, Path] = {}
    for relative in files_below(folder, VIDEOS):
        clip_id = _clip_id(relative.with_suffix("").as_posix())
        if clip_id in found:
            raise ValueError(
                f"{folder}: {found[clip_id].as_posix()!r} and {relative.as_posix()!r} would both be the clip "
                f"{clip_id!r}; rename one of them"
            )
        found[clip_id] = relative
    return dict(sorted(found.items()))


def read_labels(path: str | Path) -> list[Label]:
    """Read a TSV of lines `id<TAB>label` or `id<TAB>label<TAB>split`, with or without that header; see `tsv_lines`.

    Raises:
        ValueError: with the number of the wrong line.
    """
    path = Path(path)
    text = read_text(path, f"data.labels={str(path)!r} cannot be read; give a TSV file or null")
    labels: list[Label] = []
    seen: dict[str, int] = {}
    for number, cells in tsv_lines(text, str(path), ("id", "label"), ("id", "label", "split")):
        clip, label = unicodedata.normalize("NFC", cells[0]), cells[1]
        split = (cells[2] if len(cells) > 2 else "") or None
        if not clip or not label:
            raise ValueError(f"{path}:{number}: the {'id' if not clip else 'label'} is empty")
        if split is not None and split not in SPLITS:
            raise ValueError(f"{path}:{number}: split {split!r} is not one of {', '.join(SPLITS)}")
        if clip in seen:
            raise ValueError(f"{path}:{number}: {clip!r} already stands in line {seen[clip]}")
        seen[clip] = number
        labels.append(Label(clip, label, split, number))
    return labels


def words(stem: str) -> str:
    """A file's name as a label: `dog_bark-01` is `dog bark`. Numbers at the end only count recordings."""
    parts = [part for part in re.split(r"[\s_.\-]+", stem) if part]
    kept = list(parts)
    while kept and kept[-1].isdigit():
        kept.pop()
    return " ".join(kept or parts) or stem


def assign_splits(rows: list[dict[str, Any]], val_fraction: float, test_fraction: float) -> None:
    """Fill in missing splits: by hash, but with three clips or more none of the three splits stays empty, and with
    four or more there are two test clips. Clips without a file do not count.

    Raises:
        ValueError: if the fractions leave nothing to train on.
    """
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            f"prepare.val_fraction={val_fraction} and prepare.test_fraction={test_fraction} "
            "leave nothing for training; their sum must be below 1"
        )
    free = sorted((row for row in rows if row["split"] is None), key=_hash)
    for row in free:
        place = _hash(row)
        is_val = place < test_fraction + val_fraction
        row["split"] = "test" if place < test_fraction else "val" if is_val else "train"
    listed = [row for row in rows if row["state"] == LISTED]
    if len(listed) < 3:
        return
    for split, least in (("test", 1), ("val", 1), ("train", 1), ("test", min(TEST_CLIPS, len(listed) - 2))):
        counts = Counter(row["split"] for row in listed)
        movable = [row for row in free if row["state"] == LISTED and counts[row["split"]] > 1]
        if counts[split] < least and movable:
            largest = max(counts[row["split"]] for row in movable)
            movable = [row for row in movable if counts[row["split"]] == largest]
            movable[-1 if split == "train" else 0]["split"] = split


def _match(videos: dict[str, Path], labels: list[Label], labels_path: str) -> tuple[dict[str, Label], list[Label]]:
    """Labels by clip_id, and those without a video. An id is a relative path with or without suffix, or, where
    only one video has that name, the bare name."""
    named: dict[str, list[str]] = {}
    bare: dict[str, list[str]] = {}
    for clip_id, path in videos.items():
        relative = Path(unicodedata.normalize("NFC", path.as_posix()))
        for name in {clip_id, relative.as_posix(), relative.with_suffix("").as_posix()}:
            named.setdefault(name, []).append(clip_id)
        for name in {relative.name, relative.stem}:
            bare.setdefault(name, []).append(clip_id)
    described: dict[str, Label] = {}
    absent = []
    for label in labels:
        found = named.get(label.clip) or bare.get(label.clip) or []
        if len(found) > 1:
            raise ValueError(f"{labels_path}:{label.line}: {label.clip!r} may be any of {', '.join(found)}")
        if not found:
            absent.append(label)
        elif found[0] in described:
            raise ValueError(
                f"{labels_path}:{label.line}: clip {found[0]!r} already stands in line {described[found[0]].line}"
            )
        else:
            described[found[0]] = label
    return described, absent


def _clip_id(relative: str) -> str:
    return unicodedata.normalize("NFC", relative).replace("/", "__").replace("\\", "__")


def _hash(row: dict[str, Any]) -> float:
    """A number in [0, 1) that depends on the clip_id alone."""
    return int(sha256_text(str(row["clip_id"]))[:12], 16) / 2**48
