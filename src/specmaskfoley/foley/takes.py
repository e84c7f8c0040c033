"""A sound that was made for a video, and how it is saved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from specmaskfoley.media.writing import mux, muxed_suffix, write_audio
from specmaskfoley.storage.files import sha256, write_json
from specmaskfoley.storage.results import in_the_way, staging, text_name


@dataclass(frozen=True)
class Saved:
    """The files of a take: sound, video with it (.mp4, or .mkv where the picture's codec needs that), and record."""

    audio: Path
    video: Path
    record: Path

    @classmethod
    def named(cls, target: Path, format: str, video_suffix: str) -> Saved:
        """Beside `target`, a path without ending."""
        return cls(*(target.with_name(target.name + suffix) for suffix in (f".{format}", video_suffix, ".json")))

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.audio, self.video, self.record


@dataclass(frozen=True)
class Take:
    """A sound for a video.

    waveform: float32 (samples,), or (samples, channels) of an edited sound that has several; in a scratch file, so that
        a long one takes no memory.
    tokens: int64 (F, columns), as the model sees the sound; -1 where a given sound was not read as tokens.
    scores: those of the judges, where there were several candidates; see `choosing`.
    record: all that is needed to make it again; see `records.Record`.
    seams_s: seconds at which windows of the model met when it was generated.
    given: the sound that was edited, where it is a file of its own.
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
    given: Path | None = None

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.sample_rate

    def save(
        self,
        target: str | Path,
        *,
        format: Literal["flac", "wav"] = "flac",
        keep_original_audio: Literal["replace", "mix"] = "replace",
        overwrite: bool = False,
    ) -> Saved:
        """Write the sound, the video's own picture with it, and the record, beside `target`, a path without ending.

        All three appear, or none. They replace those that an earlier run left for the same video.

        Args:
            keep_original_audio: whether the new video has the new sound alone, or mixed with the video's own.
            overwrite: whether they may replace any file besides the video and the sound that were read.

        Raises:
            ValueError: something that must stay has one of these names.
            MediaError: the video cannot be read.
        """
        saved = Saved.named(Path(target), format, muxed_suffix(self.video))
        inputs = [self.video] if self.given is None else [self.video, self.given]
        kept = in_the_way(saved.files, lambda: str(self.record["video"]["sha256"]), inputs, overwrite=overwrite)
        if kept:
            raise ValueError(f"{'; '.join(kept)}; choose another folder or name{'' if overwrite else ', or overwrite'}")
        with staging(saved.audio.parent) as folder:
            made = Saved.named(folder / "made", format, saved.video.suffix)
            mux(self.video, self.waveform, self.sample_rate, made.video, keep_original_audio)
            write_audio(made.audio, self.waveform, self.sample_rate, self.subtype)
            files = {
                "audio": text_name(saved.audio), "audio_sha256": sha256(made.audio),
                "video": text_name(saved.video), "video_sha256": sha256(made.video),
                "keep_original_audio": keep_original_audio,
            }  # fmt: skip
            write_json(made.record, {**self.record, "files": files})
            for new, place in zip(made.files, saved.files, strict=True):
                os.replace(new, place)
        return saved
