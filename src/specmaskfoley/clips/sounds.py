"""Folders of sounds without picture (`data.audio`), and which parts of them the backbone is trained on.

A sound as long as the model's clips gives one part, a longer one several, one after the other from 0 s on; what is
left at the end counts if it has `prepare.min_duration_s`. Clips of the splits val and test are kept out: see `HeldOut`.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from specmaskfoley.clips import inspection
from specmaskfoley.clips.inspection import Demands
from specmaskfoley.clips.searching import MEDIA, files_below
from specmaskfoley.clips.vggsound import CLIP_ID
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.sound import examine_track
from specmaskfoley.processes.isolation import Lost
from specmaskfoley.settings import Params
from specmaskfoley.storage.store import Store
from specmaskfoley.storage.tables import LEDGER_SCHEMA, read_table

_ID_LENGTH = 11  # of YouTube's


@dataclass(frozen=True)
class SoundPart:
    """A row of the ledger: a part of a sound that starts at `start_s`, or a whole file that cannot be used."""

    row: dict[str, Any]
    start_s: float = 0.0


def find_sounds(folders: Iterable[str]) -> dict[str, Path]:
    """Id -> path of every sound below the folders, sorted; see `files_below`.

    An id is the folder's name (the whole path, if two folders have the same name) and the path below it without the
    suffix (with it, if two files differ in nothing else).

    Raises:
        ValueError: a folder is no directory, is named twice, or holds no sound; or two files would get the same id.
        OSError: a directory cannot be read.
    """
    found: dict[str, Path] = {}
    listed = [item for folder, name in _names(list(folders)).items() for item in _sounds_below(folder, name)]
    shared = Counter(name for name, _ in listed)
    for bare, path in listed:
        name = bare + path.suffix if shared[bare] > 1 else bare
        if name in found:
            raise ValueError(f"data.audio: {found[name]} and {path} would both be {name!r}; rename one of them")
        found[name] = path
    return dict(sorted(found.items()))


def _names(folders: list[str]) -> dict[Path, str]:
    paths = {folder: Path(folder).resolve() for folder in folders}
    for folder, path in paths.items():
        if not path.is_dir():
            raise ValueError(f"data.audio: {folder!r} is not a directory; name directories of sounds, or []")
    if len(set(paths.values())) < len(folders):
        raise ValueError(f"data.audio={folders} names a directory twice; name it once")
    shared = Counter(path.name for path in paths.values())
    return {
        Path(folder): path.name if shared[path.name] == 1 else path.as_posix().lstrip("/")
        for folder, path in paths.items()
    }


def _sounds_below(folder: Path, name: str) -> list[tuple[str, Path]]:
    found = [
        (unicodedata.normalize("NFC", f"{name}/{path.with_suffix('').as_posix()}"), folder / path)
        for path in files_below(folder, MEDIA)
    ]
    if not found:
        raise ValueError(f"data.audio: {str(folder)!r} holds no sound (looked for {', '.join(sorted(MEDIA))})")
    return found


def inspect_sounds(params: Params) -> list[SoundPart]:
    """Every part of every sound of `data.audio`, with its state and reason, in the order of the ids.

    Sounds that were inspected before and have not changed since are not opened; a killed run goes on where it was.

    Raises:
        ValueError: see `find_sounds`; or the clips' ledger is missing.
    """
    sounds = find_sounds(params.data.audio)
    held_out = HeldOut(read_table(params.paths.ledger, LEDGER_SCHEMA))
    readable = {name: str(path) for name, path in sounds.items() if _is_text(str(path))}
    with _kept(params) as store:
        inspect = partial(inspect_sound, demands=inspection.demands(params))
        findings = inspection.inspect_files(readable.values(), inspect, store, params, title="checking sounds")
    parts: list[SoundPart] = []
    first: dict[str, str] = {}
    for name, path in sounds.items():
        if name not in readable:
            unreadable = {"state": "corrupt", "reason": "its name is not UTF-8 text; rename it"}
            parts.append(SoundPart(_row(_as_text(name), _as_text(str(path)), unreadable)))
            continue
        found = findings[str(path)]
        if found["state"] == "ready":
            same = held_out.reason(found["sha256"], path.stem)
            if same is None and found["sha256"] in first:
                same = f"the same file as {first[found['sha256']]}"
            found = found if same is None else {**found, "state": "duplicate", "reason": same}
        if found["state"] == "ready":
            first[found["sha256"]] = name
            parts += _parts(name, str(path), found)
        else:
            parts.append(SoundPart(_row(name, str(path), found)))
    return parts


def set_aside(params: Params, lost: Mapping[str, Lost]) -> None:
    """Record that sounds turned out unusable after their inspection, by path."""
    with _kept(params) as store:
        for path, item in lost.items():
            inspection.note(store, params, path, item.state, item.reason)


class HeldOut:
    """Which sounds the backbone must not be trained on, or is trained on as the sound of a clip.

    A sound is left out if it is the same file as a clip of val or test, or as a usable clip of train; or if its name
    says that it comes from the same YouTube video as a clip of val or test, at any second, as `data.exclude_shared`
    does for clips.

    Args:
        ledger: rows of the clips' ledger.
    """

    def __init__(self, ledger: Iterable[Mapping[str, Any]]) -> None:
        self._files: dict[str, str] = {}
        self._videos: dict[str, str] = {}
        for row in sorted(ledger, key=lambda row: row["split"] in ("val", "test")):  # val and test override train
            clip, reserved = f"the {row['split']} clip {row['clip_id']}", row["split"] in ("val", "test")
            if row["sha256"] is not None and (reserved or row["state"] == "ready"):
                self._files[row["sha256"]] = clip
            if reserved:
                names = (row["clip_id"], Path(row["path"]).stem)
                self._videos |= {found[1]: clip for name in names if (found := CLIP_ID.fullmatch(name))}

    def reason(self, sha256: str, stem: str) -> str | None:
        """Why a sound of this content and name is left out, or None."""
        if sha256 in self._files:
            return f"the same file as {self._files[sha256]}"
        for youtube_id in youtube_ids(stem):
            if youtube_id in self._videos:
                return f"by its name of the same YouTube video as {self._videos[youtube_id]}"
        return None


def youtube_ids(stem: str) -> Iterator[str]:
    """What may be the YouTube id in a file's name: `[Y]<11 characters>[_anything]`, as in copies of AudioSet."""
    for rest in (stem, stem.removeprefix("Y")):
        if len(rest) == _ID_LENGTH or rest[_ID_LENGTH : _ID_LENGTH + 1] in ("_", "-", ".", " "):
            yield rest[:_ID_LENGTH]


def inspect_sound(path: str, *, demands: Demands) -> dict[str, Any]:
    """What a sound file is: columns of the ledger, and `parts`, each with start_s, padded_s, state and reason."""
    return inspection.read_through(path, partial(_look, demands=demands))


def _look(path: str, findings: dict[str, Any], *, demands: Demands) -> None:
    track = examine_track(path, demands.duration_s)
    findings |= {
        "duration_s": track.end_s,
        "audio_rate": track.sample_rate,
        "audio_channels": track.channels,
        "audio_start_s": track.start_s,
    }
    least = demands.min_duration_s - inspection.GRACE_S
    if track.end_s < least:
        raise MediaError(
            "short", f"{track.end_s:.2f} s of sound are less than prepare.min_duration_s={demands.min_duration_s:g}"
        )
    if demands.padding == "none":
        least = max(least, demands.duration_s - inspection.packet_s(track.sample_rate))
        if track.end_s < least:
            raise MediaError(
                "short",
                f"{track.end_s:.2f} s of sound are less than audio.duration_s={demands.duration_s:g}, and "
                "prepare.padding=none",
            )
    findings["parts"] = []
    for window in track.windows:
        start_s = window.number * demands.duration_s
        padded_s = max(0.0, start_s + demands.duration_s - track.end_s)
        if padded_s > inspection.GRACE_S and demands.duration_s - padded_s < least:
            continue
        state, reason = "ready", ""
        try:
            inspection.check_level(window.peak, window.finite, demands.silence_db)
        except MediaError as error:
            state, reason = error.state, str(error)
        findings["parts"].append({"start_s": start_s, "padded_s": padded_s, "state": state, "reason": reason})
    if not findings["parts"]:
        raise MediaError(
            "short",
            f"its sound, from {track.start_s:.2f} s to {track.end_s:.2f} s, ends too soon after the start of a part "
            f"(every {demands.duration_s:g} s) for prepare.min_duration_s={demands.min_duration_s:g}",
        )


def _parts(name: str, path: str, found: Mapping[str, Any]) -> list[SoundPart]:
    rows = []
    for part in found["parts"]:
        padding = "silence" if part["padded_s"] else None
        row = _row(f"{name}/{int(part['start_s']):06d}", path, {**found, **part, "padding": padding})
        rows.append(SoundPart(row, part["start_s"]))
    return rows


def _row(name: str, path: str, found: Mapping[str, Any]) -> dict[str, Any]:
    known = {column: value for column, value in found.items() if column in LEDGER_SCHEMA.names}
    row = {"clip_id": name, "path": path, "label": "", "split": "train", "source": "audio"}
    return {**dict.fromkeys(LEDGER_SCHEMA.names), **row, **known}


def _kept(params: Params) -> AbstractContextManager[Store]:
    return inspection.kept("sounds", params, inspect_sound)


def _is_text(name: str) -> bool:
    return _as_text(name) == name


def _as_text(name: str) -> str:
    """A name in which bytes that are not UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
