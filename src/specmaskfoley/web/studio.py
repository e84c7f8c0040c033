"""What the page does, without the page: uploads are looked into, sounds are made, sessions are kept and forgotten.

All files lie in one folder with a folder of its own for each session. Their names are made here; what a user calls a
file is never part of a path.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from specmaskfoley.clips.looking import check_media
from specmaskfoley.foley import Foley, Saved, Take
from specmaskfoley.foley.choosing import heard_by
from specmaskfoley.media.probe import MediaInfo
from specmaskfoley.report.pictures import spectrogram_strip
from specmaskfoley.settings import Prepare
from specmaskfoley.web.desk import Desk, Job

MOST_CANDIDATES = 4
MOST_STEPS = 64
MOST_SCALE = 10.0
MOST_SEED = 9999
LONGEST_TEXT = 300
_MOST_PIXELS = 8192 * 4320
_MOST_ROUNDS = 12
_MOST_SESSIONS = 64
_PICTURE_COLUMNS = 1200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is taken, and for how long it is kept once nobody uses it."""

    minutes: float = 3.0
    megabytes: float = 200.0
    idle_s: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be made; the page is not the only one who can ask, so all of it is checked."""

    text: str = ""
    seed: int = 0
    candidates: int = 1
    steps: int = 12
    cfg_scale: float = 1.5
    keep_original_audio: Literal["mix", "replace"] = "replace"

    @classmethod
    def checked(cls, text: Any, seed: Any, candidates: Any, steps: Any, cfg_scale: Any, keep: Any) -> Wish:
        """
        Raises:
            ValueError: something is no number, or beyond what the page offers.
        """
        if not isinstance(text, str | None) or len(text or "") > LONGEST_TEXT:
            raise ValueError(f"The text is too long: at most {LONGEST_TEXT} letters are taken.")
        return cls(
            text=" ".join((text or "").split()),
            seed=_whole("Seed", seed, 0, MOST_SEED),
            candidates=_whole("Takes", candidates, 1, MOST_CANDIDATES),
            steps=_whole("Steps", steps, 1, MOST_STEPS),
            cfg_scale=_number("Guidance", cfg_scale, 0.0, MOST_SCALE),
            keep_original_audio="mix" if keep is True else "replace",
        )


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}.")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    number = _number(name, value, low, high)
    if number != int(number):
        raise ValueError(f"{name} must be a whole number from {low} to {high}.")
    return int(number)


@dataclass(frozen=True)
class Upload:
    """A video that was looked into, under a name of ours."""

    path: Path
    info: MediaInfo


@dataclass(frozen=True)
class Made:
    """A take and its files."""

    take: Take
    saved: Saved
    picture: Path


@dataclass(frozen=True)
class Round:
    """What one job made; `only` are the seconds that were made anew of take `of` (from 1) of an earlier round."""

    number: int
    made: list[Made]
    wish: Wish
    only: tuple[float, float] | None = None
    of: tuple[int, int] | None = None

    @property
    def duration_s(self) -> float:
        return self.made[0].take.duration_s


@dataclass
class Session:
    """One open page; `shown` is the number of the round that its takes are of."""

    folder: Path
    used_s: float
    rounds: list[Round] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    job: Job | None = None
    count: int = 0
    shown: int = 0

    @property
    def busy(self) -> bool:
        return self.job is not None and not self.job.future.done()

    def idle(self, now_s: float) -> float:
        """Seconds since anything was asked or worked on."""
        return 0.0 if self.busy else now_s - self.used_s

    def round(self, number: Any) -> Round:
        """
        Raises:
            ValueError: there is no such round, or no more.
        """
        found = next((round for round in self.rounds if round.number == number), None)
        if found is None:
            raise ValueError("This sound is no longer kept. Make a new one.")
        return found


class Studio:
    """The model, the line before it, and the open sessions.

    Args:
        folder: for the files of sessions; removed with `close`.
    """

    def __init__(self, foley: Foley, folder: Path, limits: Limits) -> None:
        self.foley, self.folder, self.limits = foley, folder, limits
        self.desk = Desk()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._looking = threading.Lock()

    @property
    def defaults(self) -> Wish:
        params = self.foley.params
        return Wish(steps=min(params.sample.steps, MOST_STEPS), cfg_scale=min(params.cfg.scale, MOST_SCALE))

    def session(self, key: str) -> Session:
        """The session of a page; a new one where there is none. Sessions that nobody uses are forgotten."""
        now = time.monotonic()
        with self._lock:
            stale = [
                name for name, old in self._sessions.items() if now - old.used_s > self.limits.idle_s and not old.busy
            ]
            if key not in self._sessions and len(self._sessions) - len(stale) >= _MOST_SESSIONS:
                stale.append(min(self._sessions, key=lambda name: self._sessions[name].used_s))
            gone = [self._sessions.pop(name) for name in stale if name != key]
            if key not in self._sessions:
                folder = self.folder / secrets.token_hex(16)
                folder.mkdir(mode=0o700, parents=True)
                self._sessions[key] = Session(folder, now)
            found = self._sessions[key]
            found.used_s = now
        for old in gone:
            _forget(old)
        return found

    def leave(self, key: str) -> None:
        """The page was closed: its job is stopped and its files are removed."""
        with self._lock:
            old = self._sessions.pop(key, None)
        if old is not None:
            _forget(old)

    def close(self) -> None:
        """Stop all jobs and remove all files."""
        self.desk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def accept(self, session: Session, path: str | None) -> Upload:
        """Look into an uploaded file and take it over; the same file again is the same upload.

        Raises:
            ValueError: it cannot be used; the message says why.
        """
        if not path:
            raise ValueError("Choose a video first.")
        if path in session.uploads:
            return session.uploads[path]
        if not os.path.isfile(path):
            raise ValueError("This video is no longer kept. Choose it again.")
        size = os.path.getsize(path)
        if size > self.limits.megabytes * 1e6:
            raise ValueError(f"This file has {size / 1e6:.0f} MB; at most {self.limits.megabytes:g} MB are taken here.")
        with self._looking:  # one at a time: it may take a core and gigabytes
            info = look(Path(path), self.foley.params.prepare, self.limits.minutes)
        target = session.folder / f"video-{len(session.uploads) + 1}"
        _link(Path(path), target)
        session.uploads[path] = Upload(target, info)
        return session.uploads[path]

    def make(self, session: Session, path: str | None, wish: Wish) -> Job:
        """New sounds for an uploaded video; the job's result is a Round."""

        def work(job: Job) -> Round:
            job.tell(0.0, "looking at the video")
            upload = self.accept(session, path)
            takes = self.foley.generate(upload.path, **_drawn(wish, job))
            return self._keep(session, job, takes, wish)

        return self._submit(session, work)

    def remake(self, session: Session, number: Any, take: Any, begin: Any, end: Any, wish: Wish) -> Job:
        """Seconds `begin` to `end` anew of a take (counted from 1) of a round; the job's result is a Round.

        Raises:
            ValueError: there is no such take, or no such seconds.
        """
        old = session.round(number)
        chosen = _whole("Take", take, 1, len(old.made))
        first, last = (_number(name, at, 0.0, math.inf) for name, at in (("From", begin), ("To", end)))
        last = min(last, old.duration_s)
        if last - first < 0.05:
            raise ValueError(
                f"Choose a part within 0 and {old.duration_s:.2f} s, at least 0.05 s long: drag over a spectrogram."
            )

        def work(job: Job) -> Round:
            given = old.made[chosen - 1].take
            takes = self.foley.regenerate(given, only=(first, last), **_drawn(wish, job))
            return self._keep(session, job, takes, wish, (first, last), (old.number, chosen))

        return self._submit(session, work)

    def _submit(self, session: Session, work: Callable[[Job], Round]) -> Job:
        with self._lock:
            if session.busy:
                raise ValueError("Your last job is still at work; cancel it, or wait for its end.")
            session.job = self.desk.submit(work)
        return session.job

    def _keep(
        self,
        session: Session,
        job: Job,
        takes: Sequence[Take],
        wish: Wish,
        only: tuple[float, float] | None = None,
        of: tuple[int, int] | None = None,
    ) -> Round:
        """Write what was made; the oldest rounds make room."""
        job.tell(1.0, "writing the files")
        session.count += 1
        made = []
        for index, take in enumerate(takes, start=1):
            name = session.folder / f"foley-{session.count}-take-{index}"
            saved = take.save(name, keep_original_audio=wish.keep_original_audio)
            picture = name.with_name(f"{name.name}.png")
            spectrogram_strip(picture, self._mel(take))
            made.append(Made(take, saved, picture))
        session.rounds.append(Round(session.count, made, wish, only, of))
        for old in session.rounds[:-_MOST_ROUNDS]:
            for item in old.made:
                for file in (item.saved.audio, item.saved.video, item.saved.record, item.picture):
                    file.unlink(missing_ok=True)
        del session.rounds[:-_MOST_ROUNDS]
        return session.rounds[-1]

    @torch.inference_mode()
    def _mel(self, take: Take) -> np.ndarray:
        """(M, columns) of a whole sound, some columns a window of the model, so that length is no matter."""
        audio, tokenizer = self.foley.params.audio, self.foley.generator.tokenizer
        windows = math.ceil(take.duration_s * audio.sample_rate / audio.num_samples)
        each = max(1, _PICTURE_COLUMNS // windows)
        columns = []
        for window in range(windows):
            start_s = window * audio.num_samples / audio.sample_rate
            heard = heard_by(take.waveform, take.sample_rate, audio.sample_rate, start_s, audio.num_samples)
            mel = tokenizer.mel(torch.from_numpy(heard)[None])[0]
            pooled = torch.nn.functional.adaptive_max_pool1d(mel, min(each, mel.shape[1]))
            columns.append(pooled.float().cpu().numpy())
        share = take.duration_s * audio.sample_rate / (windows * audio.num_samples)
        whole: np.ndarray = np.concatenate(columns, axis=1)
        return whole[:, : max(1, round(share * whole.shape[1]))]


def look(path: Path, prepare: Prepare, minutes: float) -> MediaInfo:
    """Whether a file is a video that is taken here, by what is in it; its name says nothing.

    Raises:
        ValueError: it is not; the message says why.
    """
    try:
        info = check_media(path, prepare, minutes * 60, whole=True)
    except ValueError as error:
        reason = str(error)
        told = reason if reason.startswith(("is ", "cannot ")) else f"cannot be used: {reason}"
        raise ValueError(f"This file {told}.") from None
    if info is None:
        raise ValueError("There is only sound in this file. Choose a video.")
    if info.width * info.height > _MOST_PIXELS:
        raise ValueError(f"This picture is too large: {info.width} x {info.height}; at most 8192 x 4320 is taken.")
    return info


def _drawn(wish: Wish, job: Job) -> dict[str, Any]:
    return {
        "text": wish.text,
        "seed": wish.seed,
        "candidates": wish.candidates,
        "steps": wish.steps,
        "cfg_scale": wish.cfg_scale,
        "progress": job.tell,
        "stop": job.stopped,
    }


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _forget(session: Session) -> None:
    if session.job is not None:
        session.job.cancel()
        # The job may be writing: its folder goes when it has ended, at the latest with `close`.
        session.job.future.add_done_callback(lambda _: shutil.rmtree(session.folder, ignore_errors=True))
    else:
        shutil.rmtree(session.folder, ignore_errors=True)
    for path in session.uploads:
        Path(path).unlink(missing_ok=True)
