"""What the page does, apart from its looks: uploads are checked, sounds are made, sessions are kept and removed.

All files lie in one folder, with a folder for each session. Their names are made here; what a user calls a file is
never part of a path, only of the name that a download is offered under.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from specmaskfoley.clips.looking import check_media, check_sound
from specmaskfoley.foley import Foley, Saved, Take
from specmaskfoley.foley.choosing import doubt, heard_by
from specmaskfoley.foley.editing import Span, find_holes
from specmaskfoley.foley.prompts import SILENT, Prompt, parse_texts
from specmaskfoley.media.mel import build_mel, decibels
from specmaskfoley.media.probe import MediaInfo
from specmaskfoley.media.writing import Picture, copied_suffix
from specmaskfoley.settings import Prepare, Sampling
from specmaskfoley.web.jobs import Job, JobQueue
from specmaskfoley.web.pictures import write_poster, write_strip

MOST_CANDIDATES = 4
MOST_STEPS = 64
MOST_SCALE = 10.0
MOST_SEED = 9999
LONGEST_TEXT = 300
SHORTEST_S = 0.1
"""Seconds of a sound without video."""
_MOST_PIXELS = 8192 * 4320
_MOST_RESULTS = 12
_MOST_SESSIONS = 64
_PICTURE_COLUMNS = 1200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the page accepts, and how long an unused session is kept."""

    minutes: float = 3.0
    megabytes: float = 200.0
    idle_s: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chose on the page.

    prompt: its sound to be like is an upload, as `Studio.make` takes the video.
    duration_s: of a sound without video.
    only, from_audio: which seconds of the video's own sound, or of this file, are made anew; see `Foley.regenerate`.
    """

    prompt: Prompt = field(default_factory=Prompt)
    duration_s: float | None = None
    only: tuple[Span, ...] = ()
    from_audio: Path | None = None
    candidates: int = 1
    sampling: Sampling
    keep_original_audio: Literal["mix", "replace"] = "replace"

    @classmethod
    def checked(
        cls, defaults: Sampling, text: Any, seed: Any, candidates: Any, steps: Any, scale: Any, keep: Any,
        negative: Any = None, like: Any = None, duration: Any = None, negative_scale: Any = 1.0,
    ) -> Choices:  # fmt: skip
        """The values of the page's controls; others than the page can send any, so all are checked.

        Raises:
            ValueError: one is of a wrong type, or beyond what the page offers.
        """
        if not isinstance(like, str | None):
            raise ValueError("The sound to be like must be a file.")
        words, unwanted = _words("The text", text), _words("What is not to be heard", negative)
        number = _whole("Steps", steps, 1, MOST_STEPS)
        return cls(
            prompt=_prompt(words, unwanted, like or None),
            duration_s=None if duration is None else _number("The length", duration, SHORTEST_S, math.inf),
            candidates=_whole("Takes", candidates, 1, MOST_CANDIDATES),
            sampling=defaults.changed(
                seed=_whole("Seed", seed, 0, MOST_SEED),
                steps=defaults.steps if number == defaults.first_steps else number,
                scale=_number("Guidance", scale, 0.0, MOST_SCALE),
                negative_scale=_number("The weight of what is not to be heard", negative_scale, 0.0, MOST_SCALE),
            ),
            keep_original_audio="mix" if keep is True else "replace",
        )

    def arguments(self, job: Job) -> dict[str, Any]:
        """For the methods of `Foley`."""
        return {
            "text": self.prompt.parts or self.prompt.text, "negative": self.prompt.negative, "like": self.prompt.like,
            "candidates": self.candidates, "progress": job.report, "stop": job.stopped, **dict(self.sampling),
        }  # fmt: skip


def _words(name: str, text: Any) -> str:
    if not isinstance(text, str | None) or len(text or "") > LONGEST_TEXT:
        raise ValueError(f"{name} is too long: it may have {LONGEST_TEXT} letters.")
    return text or ""


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _prompt(text: str, negative: str, like: str | None) -> Prompt:
    if like and text.strip():
        raise ValueError("Say what is heard, or give a sound to be like, not both.")
    try:
        found = parse_texts([text])
        words = (
            _squeezed(found)
            if isinstance(found, str)
            else [(begin, end, _squeezed(said)) for begin, end, said in found]
        )
        return Prompt.of(words, _squeezed(negative), like)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("--")) from None


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
    """A video that was accepted, under a name of ours, and a picture of it.

    name: what its maker calls it, without ending.
    """

    path: Path
    info: MediaInfo
    poster: Path
    name: str


@dataclass(frozen=True)
class SavedTake:
    """A take, its files, among them the video if it is for one, and a picture of its spectrogram.

    name: its files', as they are offered for download, without ending.
    """

    take: Take
    saved: Saved
    picture: Path
    name: str

    @property
    def files(self) -> tuple[Path, ...]:
        return *self.saved.files, self.picture


@dataclass(frozen=True)
class Edit:
    """Seconds `begin` to `end` of a take (counted from 1) of an earlier result were made anew."""

    result: int
    take: int
    begin: float
    end: float


@dataclass(frozen=True)
class Result:
    """What one job made, the best take first.

    upload: the video; None: the sounds are made from words alone, or like a sound.
    remark: what is to be said of the text; see `Knowledge.remark`.
    doubt: what is to be said of the judges' numbers for this video; see `choosing.doubt`.
    """

    number: int
    upload: Upload | None
    takes: list[SavedTake]
    choices: Choices
    remark: str
    doubt: str
    edit: Edit | None = None

    @property
    def duration_s(self) -> float:
        return self.takes[0].take.duration_s


@dataclass
class Session:
    """One open page; `shown` is the number of the result on it, `count` of the latest one."""

    folder: Path
    used_s: float
    results: list[Result] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    sounds: dict[str, Path] = field(default_factory=dict)
    job: Job | None = None
    count: int = 0
    shown: int = 0

    @property
    def busy(self) -> bool:
        return self.job is not None and not self.job.future.done()

    def use(self) -> None:
        self.used_s = time.monotonic()

    def idle(self, now_s: float) -> float:
        """Seconds since the session was last used."""
        return 0.0 if self.busy else now_s - self.used_s

    def result(self, number: Any) -> Result:
        """
        Raises:
            ValueError: there is no such result, or it is no longer kept.
        """
        found = next((result for result in self.results if result.number == number), None)
        if found is None:
            raise ValueError("This sound is no longer kept. Make a new one.")
        return found


class Studio:
    """The model, the queue of jobs before it, and the open sessions.

    Args:
        folder: for the files of sessions; removed with `close`.
        examples: videos for everyone, which need no check.
    """

    def __init__(self, foley: Foley, folder: Path, limits: Limits, examples: Sequence[Upload] = ()) -> None:
        self.foley, self.folder, self.limits, self.examples = foley, folder, limits, tuple(examples)
        self.jobs = JobQueue()
        self._mel = build_mel(foley.params.audio)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._checking = threading.Lock()

    @property
    def defaults(self) -> Sampling:
        """params.yaml's, within what the page offers."""
        default = self.foley.params.sampling
        return default.changed(
            seed=0,
            steps=default.steps if default.first_steps <= MOST_STEPS else MOST_STEPS,
            scale=min(default.scale, MOST_SCALE),
        )

    def session(self, key: str) -> Session:
        """The session of a page, which is made where there is none. Unused sessions are removed."""
        self.sweep(keep=key)
        gone = None
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= _MOST_SESSIONS:
                    order = sorted(self._sessions, key=lambda name: self._sessions[name].used_s)
                    gone = self._sessions.pop(min(order, key=lambda name: self._sessions[name].busy))
                folder = self.folder / secrets.token_hex(16)
                folder.mkdir(mode=0o700, parents=True)
                self._sessions[key] = Session(folder, time.monotonic())
            found = self._sessions[key]
            found.use()
        if gone is not None:
            _remove(gone)
        return found

    def find(self, key: str) -> Session | None:
        """The session, if there is one."""
        with self._lock:
            found = self._sessions.get(key)
            if found is not None:
                found.use()
        return found

    def sweep(self, keep: str = "") -> None:
        """Remove all sessions, but for the one named, that were not used for long."""
        now = time.monotonic()
        with self._lock:
            stale = [name for name, old in self._sessions.items() if old.idle(now) > self.limits.idle_s]
            gone = [self._sessions.pop(name) for name in stale if name != keep]
        for old in gone:
            _remove(old)

    def leave(self, key: str) -> None:
        """The page was closed: cancel its job and remove its files."""
        with self._lock:
            old = self._sessions.pop(key, None)
        if old is not None:
            _remove(old)

    def close(self) -> None:
        """Stop all jobs and remove all files."""
        self.jobs.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def accept(self, session: Session, path: str | None) -> Upload:
        """Check an uploaded file, and link it into the session's folder; the same file again is the same upload.

        Raises:
            ValueError: it cannot be used; the message says why.
        """
        if not path:
            raise ValueError("Choose a video first.")
        ready = session.uploads | {str(example.path): example for example in self.examples}
        if path in ready:
            return ready[path]
        self._check_size(path, "video")
        with self._checking:  # one at a time: it may take a core and gigabytes
            info = look(Path(path), self.foley.params.prepare, self.limits.minutes)
        target = session.folder / f"video-{len(session.uploads) + 1}"
        poster = target.with_name(f"{target.name}.jpg")
        write_poster(poster, Path(path), info)
        link(Path(path), target)
        session.uploads[path] = Upload(target, info, poster, Path(path).stem)
        return session.uploads[path]

    def accept_sound(self, session: Session, path: str) -> Path:
        """Likewise a sound, or a video for its sound.

        Raises:
            ValueError: it cannot be used; the message says why.
        """
        self.check_like(path)
        if path in session.sounds:
            return session.sounds[path]
        self._check_size(path, "sound")
        with self._checking:
            listen(Path(path), self.foley.params.prepare, self.limits.minutes)
        target = session.folder / f"sound-{len(session.sounds) + 1}"
        link(Path(path), target)
        session.sounds[path] = target
        return target

    def check_like(self, like: object | None) -> None:
        """
        Args:
            like: a sound to be like, in whatever form.

        Raises:
            ValueError: there is one, and the model takes words alone.
        """
        if like is not None and not self.foley.features.hears:
            raise ValueError("This model takes words alone, no sound to be like: say what is heard.")

    def _check_size(self, path: str, what: str) -> None:
        if not os.path.isfile(path):
            raise ValueError(f"This {what} is no longer kept. Choose it again.")
        size = os.path.getsize(path)
        if size > self.limits.megabytes * 1e6:
            raise ValueError(
                f"This file has {size / 1e6:.0f} MB; at most {self.limits.megabytes:g} MB are accepted here."
            )

    def _given(self, upload: Upload, choices: Choices) -> Take:
        """The sound that is to be edited."""
        try:
            with self._checking:
                prepare, longest_s = self.foley.params.prepare, self.limits.minutes * 60
                check_sound(choices.from_audio or upload.path, prepare, longest_s)
        except ValueError as error:
            raise ValueError(f"The sound to be edited {_reason(error)}.") from None
        take = self.foley.listen(upload.path, choices.from_audio)
        if not choices.only and not find_holes(take.waveform, take.sample_rate, upload.info.duration_s):
            raise ValueError(
                "The sound has no silent hole and is as long as the video; say which seconds to make anew."
            )
        return take

    def _accepted(self, session: Session, choices: Choices) -> Choices:
        """With the sound to be like under a name of ours."""
        if choices.prompt.like is None:
            return choices
        like = self.accept_sound(session, str(choices.prompt.like))
        return replace(choices, prompt=replace(choices.prompt, like=like))

    def make(self, session: Session, path: str | None, choices: Choices) -> Job:
        """New sounds for an uploaded video, or without one; the job returns a Result.

        Raises:
            ValueError: there is no video, and nothing else to go by; or a sound to be like, and the model takes none.
        """
        self.check_like(choices.prompt.like)
        if not path:
            if not choices.prompt.given or choices.duration_s is None:
                raise ValueError("Choose a video first; or say what is heard and how long, for a sound without one.")
            if choices.duration_s > self.limits.minutes * 60:
                raise ValueError(f"The length may be {self.limits.minutes * 60:g} s at most.")

        def work(job: Job) -> Result:
            job.report(0.0, "checking the files")
            upload, chosen = self.accept(session, path) if path else None, self._accepted(session, choices)
            how = chosen.arguments(job)
            if upload is None:
                takes = self.foley.generate(duration_s=chosen.duration_s, **how)
            elif chosen.only or chosen.from_audio is not None:
                takes = self.foley.regenerate(self._given(upload, chosen), only=chosen.only or None, **how)
            else:
                takes = self.foley.generate(upload.path, **how)
            return self._keep(session, job, upload, takes, chosen)

        return self._submit(session, work)

    def remake(self, session: Session, number: Any, take: Any, begin: Any, end: Any, choices: Choices) -> Job:
        """Make seconds `begin` to `end` of a take (counted from 1) of a result anew; the job returns a Result.

        Raises:
            ValueError: there is no such take, or no such seconds; or as `make`.
        """
        self.check_like(choices.prompt.like)
        old = session.result(number)
        chosen = _whole("Take", take, 1, len(old.takes))
        first, last = (_number(name, at, 0.0, math.inf) for name, at in (("From", begin), ("To", end)))
        last = min(last, old.duration_s)
        if last - first < 0.05:
            raise ValueError(
                f"Choose a part within 0 and {old.duration_s:.2f} s, at least 0.05 s long: drag over a spectrogram."
            )

        def work(job: Job) -> Result:
            given, how = old.takes[chosen - 1].take, self._accepted(session, choices)
            takes = self.foley.regenerate(given, only=(first, last), **how.arguments(job))
            return self._keep(session, job, old.upload, takes, how, Edit(old.number, chosen, first, last))

        return self._submit(session, work)

    def _submit(self, session: Session, work: Callable[[Job], Result]) -> Job:
        def used(job: Job) -> Result:
            try:
                return work(job)
            finally:
                session.use()  # what took long is kept as long as all else

        with self._lock:
            if session.busy:
                raise ValueError("Your last job is still running; cancel it, or wait for its end.")
            session.job = self.jobs.submit(used)
        return session.job

    def _keep(
        self,
        session: Session,
        job: Job,
        upload: Upload | None,
        takes: Sequence[Take],
        choices: Choices,
        edit: Edit | None = None,
    ) -> Result:
        """Write what was made, and remove the oldest results beyond _MOST_RESULTS."""
        job.report(1.0, "writing the files")
        session.count += 1
        kept = []
        for index, take in enumerate(takes, start=1):
            name = session.folder / f"foley-{session.count}-take-{index}"
            shown: Picture = "copy"
            if upload is not None and copied_suffix(upload.path) not in (".mp4", ".mkv"):  # of browsers
                shown = "encode"
            saved = take.save(name, keep_original_audio=choices.keep_original_audio, picture=shown)
            if upload is not None and saved.video is None:
                raise ValueError(saved.trouble)
            picture = name.with_name(f"{name.name}.png")
            write_strip(picture, self._spectrogram(take))
            again = f"-{session.count}" if session.count > 1 else ""
            called = upload.name if upload is not None else " ".join(choices.prompt.texts) or "sound"
            offered = f"{_offered(called)}{again}-take-{index}"
            kept.append(SavedTake(take, saved, picture, offered))
        remark = self.foley.knowledge.remarks(choices.prompt.texts)
        judged = upload is not None and len(takes) > 1
        unsure = doubt(self.foley.params) if judged and upload not in self.examples else ""
        session.results.append(Result(session.count, upload, kept, choices, remark, unsure, edit))
        for old in session.results[:-_MOST_RESULTS]:
            for file in [file for one in old.takes for file in one.files]:
                file.unlink(missing_ok=True)
        del session.results[:-_MOST_RESULTS]
        return session.results[-1]

    @torch.inference_mode()
    def _spectrogram(self, take: Take) -> np.ndarray:
        """(M, columns) in dB of a whole sound; a window of the model gets fewer columns in a longer one."""
        audio = self.foley.params.audio
        windows = math.ceil(take.duration_s * audio.sample_rate / audio.num_samples)
        each = max(1, _PICTURE_COLUMNS // windows)
        columns = []
        for window in range(windows):
            start_s = window * audio.num_samples / audio.sample_rate
            heard = heard_by(take.waveform, take.sample_rate, audio.sample_rate, start_s, audio.num_samples)
            mel = decibels(self._mel, self._mel(torch.from_numpy(heard)[None])[0])
            pooled = torch.nn.functional.adaptive_max_pool1d(mel, min(each, mel.shape[1]))
            columns.append(pooled.numpy())
        share = take.duration_s * audio.sample_rate / (windows * audio.num_samples)
        whole: np.ndarray = np.concatenate(columns, axis=1)
        return whole[:, : max(1, round(share * whole.shape[1]))]


def look(path: Path, prepare: Prepare, minutes: float) -> MediaInfo:
    """Check by its content, whatever its name, that a file is a video that the page accepts.

    Raises:
        ValueError: it is not; the message says why.
    """
    try:
        info = check_media(path, prepare, minutes * 60, whole=True)
    except ValueError as error:
        raise ValueError(f"This file {_reason(error)}.") from None
    if info is None:
        raise ValueError("There is only sound in this file. Choose a video.")
    if info.width * info.height > _MOST_PIXELS:
        raise ValueError(f"This picture is too large: {info.width} x {info.height}; at most 8192 x 4320 is accepted.")
    return info


def listen(path: Path, prepare: Prepare, minutes: float) -> None:
    """Check by its content that a file holds a sound that can be heard.

    Raises:
        ValueError: it does not; the message says why.
    """
    try:
        facts = check_sound(path, prepare, minutes * 60)
    except ValueError as error:
        raise ValueError(f"The sound to be like {_reason(error)}.") from None
    if facts.peak <= SILENT or not facts.finite:
        raise ValueError(f"The sound to be like {'is silent' if facts.finite else 'holds numbers that are none'}.")


def _reason(error: ValueError) -> str:
    reason = str(error)
    return reason if reason.startswith(("is ", "cannot ")) else f"cannot be used: {reason}"


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _offered(name: str) -> str:
    """A name for a download that every system takes."""
    return re.sub(r"[^\w-]+", "-", name)[:60].strip("-") or "video"


def _remove(session: Session) -> None:
    if session.job is not None:
        session.job.cancel()
        # The job may be writing: its folder goes when it has ended, at the latest with `close`.
        session.job.future.add_done_callback(lambda _: shutil.rmtree(session.folder, ignore_errors=True))
    else:
        shutil.rmtree(session.folder, ignore_errors=True)
    for path in (*session.uploads, *session.sounds):
        Path(path).unlink(missing_ok=True)
