"""A sound that was made for a video, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from specmaskfoley.media.writing import mux, muxed_suffix, write_audio
from specmaskfoley.storage.files import write_json


@dataclass(frozen=True)
class Saved:
    """The files of a take: sound, video with it (.mp4, or .mkv where the picture's codec needs that), and record."""

    audio: Path
    video: Path
    record: Path


@dataclass(frozen=True)
class Take:
    """A sound for a video.

    waveform: float32 (samples,), or (samples, channels) of an edited sound that has several; in a scratch file, so that
        a long one takes no memory.
    tokens: int64 (F, columns), as the model sees the sound; -1 where a given sound was not read as tokens.
    scores: those of the judges, where there were several candidates; see `choosing`.
    record: all that is needed to make it again; see `records.Record`.
    seams_s: seconds at which windows of the model met when it was generated.
    """

    video: Path
    waveform: np.ndarray
    sample_rate: int
    seed: int
    tokens: np.ndarray
    scores: dict[str, float] | None
    record: dict[str, Any]
    subtype: Literal["PCM_16", "PCM_24"] = "PCM_16"
    seams_s: tuple[float, ...] = ()

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.sample_rate

    def save(
        self,
        target: str | Path,
        *,
        format: Literal["flac", "wav"] = "flac",
        keep_original_audio: Literal["replace", "mix"] = "replace",
    ) -> Saved:
        """Write the sound, the video's own picture with it, and the record, beside `target`, a path without ending.

        Args:
            keep_original_audio: whether the new video has the new sound alone, or mixed with the video's own.

        Raises:
            ValueError: a file to be written is the video itself.
            MediaError: the video cannot be read.
        """
        target = Path(target)
        video = _named(target, muxed_suffix(self.video))
        saved = Saved(_named(target, f".{format}"), video, _named(target, ".json"))
        if video.exists() and video.samefile(self.video):
            raise ValueError(f"{video}: would take the place of the video itself; choose another folder or name")
        mux(self.video, self.waveform, self.sample_rate, video, keep_original_audio)
        write_audio(saved.audio, self.waveform, self.sample_rate, self.subtype)
        files = {"audio": saved.audio.name, "video": saved.video.name, "keep_original_audio": keep_original_audio}
        write_json(saved.record, {**self.record, "files": files})
        return saved


def _named(target: Path, suffix: str) -> Path:
    """`with_suffix` would take a dot in the name for the beginning of a suffix."""
    return target.with_name(target.name + suffix)
