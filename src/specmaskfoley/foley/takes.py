"""What a model made for a video, and its way onto the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from specmaskfoley.media.writing import mux, muxed_suffix, write_audio
from specmaskfoley.storage.files import write_json


@dataclass(frozen=True)
class Saved:
    """What was written: the sound, the video with it (.mp4; .mkv where the picture's codec fits in no .mp4), and how
    to make it again.
    """

    audio: Path
    video: Path
    record: Path


@dataclass(frozen=True)
class Take:
    """A sound for a video.

    waveform: float32 (samples,), or (samples, channels) of an edited sound of several; in a scratch file, so that its
        length is no matter.
    scores: what the judges say, where there were several candidates; see `choosing`.
    tokens: int64 (F, columns), -1 where a given sound was never read as tokens; those that the model sees.
    record: everything that is needed to make it again.
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
            keep_original_audio: what becomes of the video's own sound, in the video; the sound file is the new one.

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
    """Not `with_suffix`: a dot in the name is part of the name."""
    return target.with_name(target.name + suffix)
