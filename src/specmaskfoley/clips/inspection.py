"""Which clips can be used: one ledger row a clip, with the reason where it cannot.

Everything that later stages read of a clip is decoded here once, in a worker process, so that a file which crashes or
hangs its decoder does not end the stage. Findings are kept with the file's size and modification time, so that adding
clips costs only the new ones. `inspect_files` does this for other kinds of files, too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import av

from specmaskfoley.lineage import kept_key
from specmaskfoley.media.container import MediaError, check_file
from specmaskfoley.media.probe import MediaInfo, probe
from specmaskfoley.media.sound import examine_sound
from specmaskfoley.processes.isolation import IsolatedPool, Lost
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256
from specmaskfoley.storage.scratch import pool
from specmaskfoley.storage.store import Store
from specmaskfoley.storage.tables import LEDGER_SCHEMA, LISTED

_AHEAD = 32  # a worker: results are small, and one slow clip should not stop the others
GRACE_S = 0.001
"""Containers round durations."""

_PACKET_SAMPLES = 2048  # the longest packet of the usual codecs (HE-AAC): what encoders may drop at the end
_LIMITED = ("timeout", "crashed")


@dataclass(frozen=True)
class Demands:
    """What a clip must have to be usable; from the settings `audio.duration_s` and `prepare`."""

    duration_s: float
    min_duration_s: float
    silence_db: float
    padding: str


def inspect_clips(clips: Sequence[dict[str, Any]], params: Params) -> list[dict[str, Any]]:
    """Rows of the clip list -> rows of storage.tables.LEDGER_SCHEMA, in the same order.

    Clips that the source could not provide are passed through. Of the others, files that were inspected before (with
    these settings, this decoder and this code) and have not changed since are not opened again, so a killed run goes on
    where it was.
    """
    rows = [{**dict.fromkeys(LEDGER_SCHEMA.names), **clip} for clip in clips]
    listed = [row for row in rows if row["state"] == LISTED]
    with _kept(params) as store:
        inspect = partial(inspect_clip, demands=demands(params))
        known = inspect_files((row["path"] for row in listed), inspect, store, params, title="checking clips")
    for row in listed:
        row.update(known[row["path"]])
    return rows


def inspect_files(
    paths: Iterable[str], inspect: Callable[[str], dict[str, Any]], store: Store, params: Params, *, title: str
) -> dict[str, dict[str, Any]]:
    """Path -> what `inspect` finds in the file, including `state` and `reason`; from the store where it is known.

    `inspect` is called in worker processes, within the limits of `prepare`.
    """
    limits, prepare = _limits(params), params.prepare
    before = {path: _version(path) for path in paths}
    known = {path: _known(store, path, version, limits) for path, version in before.items()}
    fresh = [path for path, findings in known.items() if findings is None]
    found = {path: findings for path, findings in known.items() if findings is not None}
    with IsolatedPool(
        params.run.workers, timeout_s=prepare.clip_timeout_s, memory_gb=prepare.clip_memory_gb
    ) as workers:
        ahead = _AHEAD * (params.run.workers or os.cpu_count() or 1)
        results = workers.map(inspect, fresh, title=title, ahead=ahead)
        for path, result in zip(fresh, results, strict=True):
            findings = {"state": result.state, "reason": result.reason} if isinstance(result, Lost) else result
            # Not kept: files that appeared, vanished or changed meanwhile, and passing faults of the disk.
            if findings["state"] != "missing" and before[path] is not None and before[path] == _version(path):
                store.put({path: {"version": before[path], "limits": limits, "findings": findings}})
            found[path] = findings
    return found


def set_aside(params: Params, path: str, state: str, reason: str) -> None:
    """Record that a clip turned out unusable after its inspection; `dvc repro -f prepare` then leaves it out.

    Args:
        path: as in the clip list.
        state: one of storage.tables.STATES.
    """
    with _kept(params) as store:
        note(store, params, path, state, reason)


def note(store: Store, params: Params, path: str, state: str, reason: str) -> None:
    """Record another state than inspection found; it holds until the file changes."""
    earlier = (store.get(path) or {}).get("findings", {})
    findings = {**earlier, "state": state, "reason": reason}
    store.put({path: {"version": _version(path), "limits": _limits(params), "findings": findings}})


def demands(params: Params) -> Demands:
    """What the settings demand of a clip."""
    prepare = params.prepare
    return Demands(params.audio.duration_s, prepare.min_duration_s, prepare.silence_db, prepare.padding)


def inspect_clip(path: str, *, demands: Demands) -> dict[str, Any]:
    """The columns of one clip's ledger row that follow from its file. Only the first `duration_s` seconds are decoded,
    which is what the model sees and hears.
    """
    return read_through(path, partial(_look, demands=demands))


def read_through(path: str, look: Callable[[str, dict[str, Any]], None]) -> dict[str, Any]:
    """Size, hash and decoder of a file, and what `look` adds; an error of `look` becomes the state.

    Raises:
        MemoryError: nothing else.
    """
    findings: dict[str, Any] = {"state": "ready", "reason": ""}
    try:
        findings["size_bytes"] = check_file(path).st_size
        findings["sha256"] = _sha256(path)
        findings["decoder"] = decoder_version()
        look(path, findings)
    except MediaError as error:
        findings |= {"state": error.state, "reason": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # one odd file among 200,000 must not end the stage; the ledger says what it was
        findings |= {"state": "corrupt", "reason": f"reading it fails: {type(error).__name__}: {error}"}
    return findings


def _look(path: str, findings: dict[str, Any], *, demands: Demands) -> None:
    info = probe(path, demands.duration_s)
    padded_s = max(0.0, demands.duration_s - usable_s(info))
    findings |= {
        "duration_s": info.duration_s,
        "fps": info.fps,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "audio_rate": info.audio_rate,
        "audio_channels": info.audio_channels,
        "video_start_s": info.video_start_s,
        "audio_start_s": info.audio_start_s,
        "padded_s": padded_s,
        "padding": demands.padding if padded_s else None,
    }
    _check(path, info, demands)


def usable_s(info: MediaInfo) -> float:
    """Seconds during which the clip has both picture and sound."""
    return min(info.duration_s, info.audio_end_s or 0.0)


@cache
def decoder_version() -> str:
    """The libraries that decode, such as `PyAV 18.1.0, FFmpeg 8.1.2 (libavcodec 62.28.102)`."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info} (libavcodec {codec})"


def _check(path: str, info: MediaInfo, demands: Demands) -> None:
    if info.audio_rate is None:
        raise MediaError("no_audio", "the file has no sound track")
    have = f"{info.duration_s:.2f} s of video and {info.audio_end_s or 0:.2f} s of sound"
    if usable_s(info) < demands.min_duration_s - GRACE_S:
        raise MediaError("short", f"{have} are less than prepare.min_duration_s={demands.min_duration_s:g}")
    if demands.padding == "none":
        # A cut falls between two frames, and between two packets of sound.
        frame_s = 1 / info.fps if info.fps else 0.0
        if info.duration_s < demands.duration_s - max(frame_s, GRACE_S) or (
            (info.audio_end_s or 0.0) < demands.duration_s - packet_s(info.audio_rate)
        ):
            raise MediaError(
                "short",
                f"{have} are less than audio.duration_s={demands.duration_s:g}, and prepare.padding=none",
            )
    sound = examine_sound(path, demands.duration_s)
    check_level(sound.peak, sound.finite, demands.silence_db)


def check_level(peak: float, finite: bool, silence_db: float) -> None:
    """
    Raises:
        MediaError: the samples of a sound are not all finite, or its peak is silence.
    """
    if not finite:
        raise MediaError("corrupt", "its sound holds NaN or infinite samples")
    level = 20 * math.log10(peak) if peak > 0 else -math.inf
    if level < silence_db:
        raise MediaError("silent", f"peak of {level:.0f} dBFS is below prepare.silence_db={silence_db:g}")


def _sha256(path: str) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise MediaError("missing", f"cannot be read: {error.strerror}") from None


def packet_s(audio_rate: int) -> float:
    """Seconds of sound that an encoder may drop at the end."""
    return max(_PACKET_SAMPLES / audio_rate if audio_rate else 0.0, GRACE_S)


@contextmanager
def kept(stage: str, params: Params, inspect: Callable[..., dict[str, Any]]) -> Iterator[Store]:
    """What `inspect` found in earlier runs of a stage by the present demands, decoder and code, by path; locked."""
    key = kept_key([inspect], [asdict(demands(params)), decoder_version()], params)
    with (
        pool(stage, key) as directory,
        Store(directory / "files.sqlite") as store,
    ):
        yield store


def _kept(params: Params) -> AbstractContextManager[Store]:
    return kept("prepare", params, inspect_clip)


def _limits(params: Params) -> list[float]:
    return [params.prepare.clip_timeout_s, params.prepare.clip_memory_gb]


def _version(path: str) -> list[int] | None:
    """Size and modification time of a file, which tell whether it has changed; None if it cannot be read."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _known(store: Store, path: str, version: list[int] | None, limits: list[float]) -> dict[str, Any] | None:
    """What was found in a file, if that still holds. `timeout` and `crashed` hold only for the same limits."""
    entry = store.get(path)
    if entry is None or version is None or entry["version"] != version:
        return None
    findings: dict[str, Any] = entry["findings"]
    return None if findings["state"] in _LIMITED and entry["limits"] != limits else findings
