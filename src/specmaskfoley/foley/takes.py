"""A sound that was made for a video, and how it is saved."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from specmaskfoley.foley.levels import Level, level_of
from specmaskfoley.media.writing import COPIED, Picture, copied_suffix, mux, write_audio
from specmaskfoley.storage.files import sha256, write_json
from specmaskfoley.storage.results import in_the_way, staging, text_name

if TYPE_CHECKING:
    from specmaskfoley.foley.choosing import Verdict
    from specmaskfoley.foley.frames import Frames

_PLAYED_S = 120
"""Seconds that a player in a notebook has, which keeps them in its file: 5 MB each minute and channel."""


@dataclass(frozen=True)
class Saved:
    """The files of a take: sound, video with it (see `media.writing.copied_suffix`), and record; `trouble` says why
    there is no video."""

    audio: Path
    video: Path | None
    record: Path
    trouble: str = ""

    @classmethod
    def named(cls, target: Path, format: str, video_suffix: str | None) -> Saved:
        """Beside `target`, a path without ending."""
        audio, record, video = (
            target.with_name(target.name + end) for end in (f".{format}", ".json", video_suffix or "")
        )
        return cls(audio, video if video_suffix else None, record)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for file in (self.audio, self.video, self.record) if file is not None)


@dataclass(frozen=True, repr=False)
class Take:
    """A sound for a video; in a notebook, a player.

    video: what it was made for; None: nothing but words, or a reference sound.
    waveform: float32 (samples,), or (samples, channels) of an edited sound that has several; in a scratch file, so that
        a long one takes no memory.
    tokens: int64 (F, columns), as the model sees the sound; -1 where a given sound was not read as tokens.
    scores, verdict: of the judges, where there were several candidates, as numbers and in words; see `choosing`.
    record: all that is needed to make it again; see `records.Record`.
    seams_s: seconds at which windows of the model met when it was generated.
    given: the sound that was edited, where it is a file of its own.
    frames: what keeps the video, where it was given as frames.
    """

    video: Path | None
    waveform: np.ndarray
    sample_rate: int
    seed: int
    tokens: np.ndarray
    scores: dict[str, float] | None
    record: dict[str, Any]
    subtype: Literal["PCM_16", "PCM_24"] = "PCM_16"
    seams_s: tuple[float, ...] = ()
    given: Path | None = None
    verdict: Verdict | None = None
    frames: Frames | None = None

    def __repr__(self) -> str:
        made_for = "sound without video" if self.video is None else "frames" if self.frames else self.video.name
        loudness = "nearly silent" if self.level.nearly_silent else f"loudest {self.level.loudest_db:.0f} dBFS"
        return f"Take({made_for}, {self.duration_s:.2f} s, {self.sample_rate} Hz, seed {self.seed}, {loudness})"

    def _repr_html_(self) -> str:
        """A player with the sound in it, for notebooks."""
        import soundfile

        played, file = self.waveform[: _PLAYED_S * self.sample_rate], io.BytesIO()
        soundfile.write(file, played, self.sample_rate, "PCM_16", format="WAV")
        said = [repr(self), *([self.verdict.scores] if self.verdict is not None else [])]
        if len(played) < len(self.waveform):
            said.append(f"the first {_PLAYED_S} s; save() writes all")
        data = base64.b64encode(file.getvalue()).decode()
        return f'<p>{html.escape("; ".join(said))}</p><audio controls src="data:audio/wav;base64,{data}"></audio>'

    @cached_property
    def level(self) -> Level:
        """Of what was made: where parts of a sound were made anew, of these alone."""
        last = self.record["history"][-1]
        if last["operation"] == "regenerate":
            return level_of(self.waveform, self.sample_rate, last["only"])
        return level_of(self.waveform, self.sample_rate)

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.sample_rate

    def save(
        self,
        target: str | Path,
        *,
        format: Literal["flac", "wav"] = "flac",
        keep_original_audio: Literal["replace", "mix"] = "replace",
        picture: Picture | None = None,
        audio_track: int | None = None,
        overwrite: bool = False,
    ) -> Saved:
        """Write the sound, the video's own picture with it, and the record, beside `target`, a path without ending.

        All three appear, or none; where the picture cannot be copied, the sound and the record. They replace those that
        an earlier run left for the same video.

        Args:
            keep_original_audio: whether the new video has the new sound alone, or mixed with the video's own.
            picture: copied bit by bit, or encoded anew as H.264, which any can be; by default that of a file is
                copied, and frames are encoded.
            audio_track: which of the video's own is mixed; see `media.container.audio_stream`.
            overwrite: whether they may replace any file besides the video and the sound that were read.

        Raises:
            ValueError: something that must stay has one of these names.
            MediaError: the video cannot be read.
        """
        picture = picture or ("copy" if self.frames is None else "encode")
        suffix = None if self.video is None else video_suffix(self.video, picture)
        saved = Saved.named(Path(target), format, suffix)
        inputs = [path for path in (self.video, self.given) if path is not None]
        made_of = self.record["video"] or {}
        kept = in_the_way(saved.files, lambda: made_of.get("sha256"), inputs, overwrite=overwrite)
        if kept:
            raise ValueError(f"{'; '.join(kept)}; choose another folder or name{'' if overwrite else ', or overwrite'}")
        with staging(saved.audio.parent) as folder:
            made = Saved.named(folder / "made", format, suffix)
            write_audio(made.audio, self.waveform, self.sample_rate, self.subtype)
            files: dict[str, Any] = {"audio": text_name(saved.audio), "audio_sha256": sha256(made.audio)}
            trouble = f"its picture cannot be copied into {', '.join(COPIED)}" if self.video is not None else ""
            if saved.video is not None and made.video is not None:
                trouble = self._mux(made.video, keep_original_audio, picture, audio_track)
            if saved.video is not None and made.video is not None and not trouble:
                files |= {"video": text_name(saved.video), "video_sha256": sha256(made.video)}
            else:
                saved, made = replace(saved, video=None, trouble=trouble), replace(made, video=None)
            files |= {"keep_original_audio": keep_original_audio, "picture": picture, "audio_track": audio_track}
            write_json(made.record, {**self.record, "level": self.level.facts, "files": files})
            for new, place in zip(made.files, saved.files, strict=True):
                os.replace(new, place)
        return saved

    def _mux(self, out: Path, keep: Literal["replace", "mix"], picture: Picture, audio_track: int | None) -> str:
        """Write the video; why it cannot be written, though the look at it found no reason."""
        assert self.video is not None  # else there is no name for one
        try:
            mux(self.video, self.waveform, self.sample_rate, out, keep, picture=picture, audio_track=audio_track)
        except ValueError as error:  # the sound is worth keeping
            return str(error).replace(str(out), "the video")
        return ""


def video_suffix(video: Path, picture: Picture) -> str | None:
    """Of the video that `save` writes; None: it writes none."""
    return ".mp4" if picture == "encode" else copied_suffix(video)
