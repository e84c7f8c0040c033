"""The trained system: video in, sound out.

Shape letters: F token rows, N samples.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from specmaskfoley import device as runtime
from specmaskfoley.encoders.features import Features
from specmaskfoley.foley.choosing import judge, rank, verdicts
from specmaskfoley.foley.editing import Span, check_spans, columns_of, extended, find_holes, replaced, rows_above
from specmaskfoley.foley.export import judges_identity, model_identity, versions
from specmaskfoley.foley.frames import VideoSource, video_file
from specmaskfoley.foley.inpainting import Inpainter, Progress, Request, Watch
from specmaskfoley.foley.knowledge import Knowledge
from specmaskfoley.foley.prompts import Prompt, Text
from specmaskfoley.foley.records import (
    Deciding,
    ExtendBand,
    FileIdentity,
    Generate,
    Listen,
    Record,
    Regenerate,
    VideoIdentity,
    edited,
)
from specmaskfoley.foley.rendering import turn_down
from specmaskfoley.foley.takes import Take
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_track
from specmaskfoley.sampling.generator import Generator
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256
from specmaskfoley.weights.unfilled import Unfilled

if TYPE_CHECKING:
    from specmaskfoley.judges.panel import Panel


class Foley:
    """The trained system; see `load`.

    `generate`, `regenerate` and `extend_band` take the same arguments besides their own:

        text: what is heard; several parts as (from, to, words) in seconds; empty: the video alone.
        negative: what is not to be heard; takes one more pass of the network in every step, whose weight is the
            setting negative_scale.
        like: a sound file in place of a text.
        candidates: how many are drawn, with the seeds seed, seed + 1, ...; with several, judges rank them.
        progress: see `Progress`.
        stop: called often; once it returns True, `Stopped` is raised.
        sampling: settings of `Sampling`, such as seed=1, steps=8, scale=3.0; by default params.yaml's, and seed=0.
            Without text or `like` the mode is `no_text_video`, unless it is `audio`; without video it is `text`.
    """

    def __init__(self, params: Params, device: torch.device, home: Path, record: Record | None = None) -> None:
        """
        Args:
            home: the folder from which the paths in `params` count.
            record: what `remake` makes; its settings are those of `params`.
        """
        self.params, self.device, self.home, self.record = params, device, home.resolve(), record
        with contextlib.chdir(self.home), Unfilled():
            self.features = Features(params, device)
            self.generator = Generator(params, device)
        self._inpainter = Inpainter(self.features, self.generator)

    @classmethod
    def load(cls, source: str | Path = ".", *, device: str | None = None, record: str | Path | None = None) -> Foley:
        """The model of a project (its folder, or its params.yaml) or of an exported folder.

        While it loads, the working directory is the model's.

        Args:
            device: in place of run.device.
            record: a JSON file that `Take.save` wrote: its settings take the place of the model's, for `remake`.

        Raises:
            ValueError: naming what is missing or does not fit, such as other weights than the record's.
        """
        path = Path(source)
        path = path / "params.yaml" if path.is_dir() else path
        if not path.exists():
            raise ValueError(f"{path}: no such file; name a project, or a folder that `specmaskfoley export` wrote")
        params, made = Params.load(path), None
        if record is not None:
            made = Record.read(record)
            params = made.settings.apply(params)
            with contextlib.chdir(path.parent):
                made.check_model(params)
        if device is not None:
            params = params.model_copy(update={"run": params.run.model_copy(update={"device": device})})
        return cls(params, runtime.start(params), path.parent, made)

    def generate(
        self,
        video: VideoSource | None = None,
        *,
        fps: float | Fraction | None = None,
        duration_s: float | None = None,
        text: Text = "",
        negative: str = "",
        like: str | Path | None = None,
        candidates: int = 1,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        **sampling: Any,
    ) -> list[Take]:
        """Sounds as long as the video, the best first; without a video, in the order of their seeds.

        Args:
            video: a file, or frames; see `frames.VideoSource`.
            fps: of frames.
            duration_s: seconds of a sound without video.

        Raises:
            ValueError: an argument is wrong.
            MediaError: the video cannot be read.
            Stopped: see `stop`.
        """
        rate, prompt = self.params.audio.sample_rate, self._prompt(text, negative, like)
        if (video is None) == (duration_s is None):
            raise ValueError("give a video, or duration_s for a sound without one")
        video, frames = video_file(video, fps)
        seconds = _checked_duration(duration_s) if video is None else _duration(video)
        tokens = np.full((self.params.grid.rows, self._columns(seconds)), -1)
        request = self._request(prompt, seconds, candidates, sampling, Watch(progress, stop), seen=video is not None)
        drawn = self._inpainter.draw(video, tokens, np.zeros(tokens.shape, bool), request)
        identity, takes = None if video is None else VideoIdentity.of(video, duration_s=seconds), []
        said = Generate.said(prompt)
        for one in drawn:
            sound = one.sound[: max(1, math.ceil(seconds * rate))]
            turn_down(sound)
            first = Generate(**said, sampling=one.sampling, duration_s=duration_s)
            record = self._record(identity, first, self.knowledge.facts(prompt.texts))
            takes.append(
                Take(
                    video, sound, rate, one.sampling.seed, one.tokens, None, record, seams_s=one.seams_s, frames=frames
                )
            )
        return self._ranked(takes, request.watch)

    def listen(self, video: str | Path, audio: str | Path | None = None, track: int | None = None) -> Take:
        """An existing sound, to be edited: that of a file, or the video's own.

        Args:
            track: which one of the file's, from 1; None: see `media.container.audio_stream`.

        Raises:
            MediaError: the video or the sound cannot be read.
        """
        video = Path(video)
        duration_s = _duration(video)
        source = video if audio is None else Path(audio)
        sound = read_track(source, track)
        waveform = sound.waveform[:, 0] if sound.waveform.shape[1] == 1 else sound.waveform
        waveform = waveform[: max(1, round(duration_s * sound.sample_rate))]
        tokens = np.full((self.params.grid.rows, self._columns(duration_s)), -1)
        first = Listen(audio=FileIdentity.of(source), track=track)
        record = self._record(VideoIdentity.of(video, duration_s=duration_s), first, self.knowledge.facts(()))
        given = None if audio is None else source
        return Take(video, waveform, sound.sample_rate, 0, tokens, None, record, sound.subtype, given=given)

    def regenerate(
        self,
        take: Take,
        *,
        only: Span | Sequence[Span] | None = None,
        text: Text = "",
        negative: str = "",
        like: str | Path | None = None,
        candidates: int = 1,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        **sampling: Any,
    ) -> list[Take]:
        """The take with parts of it made anew, the best first; all samples outside are kept to the bit.

        Args:
            only: from and to in seconds, or several such; None: what is digitally silent for 0.1 s and more, and what
                is missing at the end.

        Raises:
            ValueError: an argument is wrong, or there is nothing to make.
            MediaError, Stopped: as `generate`.
        """
        duration_s = take.duration_s if take.video is None else probe(take.video).duration_s
        if only is None:
            spans = find_holes(take.waveform, take.sample_rate, duration_s)
            if not spans:
                sound = "the sound" if take.given is None else f"--from-audio {take.given}"
                raise ValueError(
                    f"{sound} has no silent hole and is as long as the video; say which seconds to make anew with "
                    "--only (only)"
                )
        else:
            several = [only] if isinstance(only[0], int | float) else only
            spans = check_spans(several, duration_s)  # type: ignore[arg-type]
        inside = columns_of(spans, self.params.grid.step / self.params.audio.sample_rate, take.tokens.shape[1])
        prompt, watch = self._prompt(text, negative, like), Watch(progress, stop)
        request = self._request(prompt, duration_s, candidates, sampling, watch, seen=take.video is not None)
        made_rate = self.params.audio.sample_rate

        def edit(sound: np.ndarray) -> tuple[np.ndarray, int]:
            return replaced(take.waveform, take.sample_rate, sound, made_rate, spans, duration_s), take.sample_rate

        said = Regenerate.said(request.prompt)
        steps = [Regenerate(only=tuple(spans), **said, sampling=one) for one in request.samplings]
        return self._edited(take, np.tile(~inside, (len(take.tokens), 1)), request, steps, edit)

    def extend_band(
        self,
        take: Take,
        hz: float,
        *,
        text: Text = "",
        negative: str = "",
        like: str | Path | None = None,
        candidates: int = 1,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        **sampling: Any,
    ) -> list[Take]:
        """A take of a sound that ends at `hz` with what belongs above added, the best first.

        Raises:
            ValueError: an argument is wrong, such as an `hz` that is not within what the model makes.
            MediaError, Stopped: as `generate`.
        """
        above = rows_above(hz, self.params)
        prompt, watch = self._prompt(text, negative, like), Watch(progress, stop)
        request = self._request(prompt, take.duration_s, candidates, sampling, watch, seen=take.video is not None)

        def edit(sound: np.ndarray) -> tuple[np.ndarray, int]:
            return extended(take.waveform, take.sample_rate, sound, self.params.audio.sample_rate, hz)

        said = ExtendBand.said(request.prompt)
        steps = [ExtendBand(hz=hz, **said, sampling=one) for one in request.samplings]
        return self._edited(take, np.tile(~above[:, None], (1, take.tokens.shape[1])), request, steps, edit)

    def remake(
        self,
        video: VideoSource | None = None,
        audio: str | Path | None = None,
        *,
        fps: float | Fraction | None = None,
        like: str | Path | Sequence[str | Path] = (),
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Take:
        """The sound of the record that the model was loaded with, to the bit on the same kind of processor.

        Args:
            video, fps, audio: what the record was made of; names and places do not matter. `audio` where an edited
                sound was a file of its own.
            like: the reference sounds, in any order.

        Raises:
            ValueError: there is no record, or a file is another one than the record's.
            MediaError, Stopped: as `generate`.
        """
        if self.record is None:
            raise ValueError("no record to go by; load the model with record=..., the JSON file beside the sound")
        given = [Path(one) for one in ([like] if isinstance(like, str | Path) else like)]
        video, frames = video_file(video, fps)
        audio = None if audio is None else Path(audio)
        self.record.check_inputs(video, audio, given)
        references = {sha256(path): path for path in given}
        take: Take | None = None
        total = len(self.record.history)
        for done, step in enumerate(self.record.history):

            def report(share: float, message: str, done: int = done) -> None:
                if progress is not None:
                    progress((done + share) / total, message)

            if isinstance(step, Listen):
                assert video is not None  # the record has one
                take = self.listen(video, audio if self.record.given_audio else None, step.track)
                continue
            how: dict[str, Any] = {
                "text": step.text, "negative": step.negative,
                "like": None if step.like is None else references[step.like.sha256],
                **dict(step.sampling), "progress": report, "stop": stop,
            }  # fmt: skip
            if isinstance(step, Generate):
                take = self.generate(video, duration_s=step.duration_s, **how)[0]
                continue
            assert take is not None  # Record.read has checked that edits come later
            if isinstance(step, Regenerate):
                take = self.regenerate(take, only=step.only, **how)[0]
            else:
                take = self.extend_band(take, step.hz, **how)[0]
        assert take is not None
        return replace(take, frames=frames)

    def _prompt(self, text: Text, negative: str, like: str | Path | None) -> Prompt:
        """
        Raises:
            ValueError: naming the argument that is wrong, or that the model cannot follow.
        """
        prompt = Prompt.of(text, negative, like)
        prompt.check_ears(self.features.hears)
        return prompt

    def _request(
        self,
        prompt: Prompt,
        duration_s: float,
        candidates: int,
        sampling: Mapping[str, Any],
        watch: Watch,
        *,
        seen: bool,
    ) -> Request:
        """
        Args:
            seen: whether there is a video.

        Raises:
            ValueError: naming the argument that is wrong.
        """
        if candidates < 1:
            raise ValueError(f"candidates={candidates} must be at least 1")
        if not (seen or prompt.given):
            raise ValueError("a sound without video needs a text, or a sound that it is to be like")
        prompt.check(duration_s)
        first = prompt.sampling(self.params.sampling.changed(**{"seed": 0, **sampling}), seen=seen)
        first.steps_of(self.params.backbone.levels)  # refuses a list of another length
        return Request(prompt, [first.changed(seed=first.seed + number) for number in range(candidates)], watch)

    def _columns(self, duration_s: float) -> int:
        """Token columns that a video takes, at least a window of them."""
        grid = self.params.grid
        return max(grid.columns, math.ceil(duration_s * self.params.audio.sample_rate / grid.step))

    def _edited(
        self,
        take: Take,
        known: np.ndarray,
        request: Request,
        steps: Sequence[Regenerate | ExtendBand],
        edit: Callable[[np.ndarray], tuple[np.ndarray, int]],
    ) -> list[Take]:
        """Candidates of an edit, the best first.

        Args:
            known: (F, columns) bool, the tokens that stay.
            steps: how each candidate is recorded.
            edit: from what the model made, (N,) at its rate, to the new sound and its rate.
        """
        takes = []
        drawn = self._inpainter.draw(take.video, take.tokens, known, request, take)
        for one, step in zip(drawn, steps, strict=True):
            waveform, rate = edit(one.sound)
            takes.append(
                replace(
                    take, waveform=waveform, sample_rate=rate, tokens=one.tokens, seed=one.sampling.seed, scores=None,
                    verdict=None, record=edited(take.record, step, self.knowledge.facts(request.prompt.texts)),
                )
            )  # fmt: skip
        return self._ranked(takes, request.watch)

    @cached_property
    def judges(self) -> Panel:
        """Who ranks candidates; loaded when first needed."""
        from specmaskfoley.judges.trained import load_panel

        with contextlib.chdir(self.home), Unfilled():
            return load_panel(self.params, self.device)

    def _ranked(self, takes: list[Take], watch: Watch) -> list[Take]:
        """The best first, with the scores of all in every record; a single take is not judged."""
        if len(takes) == 1:
            return takes
        if (video := takes[0].video) is None:  # the judges compare sound with picture
            return takes
        watch.report(1.0, "judging the candidates")
        sounds = [(take.waveform, take.sample_rate) for take in takes]
        scores = judge(self.judges, video, takes[0].duration_s, sounds)
        order = rank(scores, [take.level.nearly_silent for take in takes])
        takes, scores = [takes[index] for index in order], [scores[index] for index in order]
        silent = [take.level.nearly_silent for take in takes]
        found = verdicts(scores, silent, self.judges.grid, self.params.judges.kind)
        with contextlib.chdir(self.home):
            judges = judges_identity(self.params)
        candidates = [
            {"seed": take.seed, **numbers, "nearly_silent": quiet}
            for take, numbers, quiet in zip(takes, scores, silent, strict=True)
        ]
        more = {"judges": judges, "candidates": candidates}
        return [
            replace(take, scores=numbers, verdict=verdict, record={**take.record, **more})
            for take, numbers, verdict in zip(takes, scores, found, strict=True)
        ]

    @cached_property
    def knowledge(self) -> Knowledge:
        """What the model knows."""
        return Knowledge.of(self.params, self.home)

    @cached_property
    def _model(self) -> dict[str, str]:
        with contextlib.chdir(self.home):
            return model_identity(self.params)

    def _record(
        self, video: VideoIdentity | None, first: Generate | Listen, knowledge: dict[str, Any]
    ) -> dict[str, Any]:
        settings = Deciding.of(self.params, self.device)
        made_on = {
            "device": runtime.device_name(self.device),
            "encoders": runtime.precision_name(self.params.run.precision, self.device),
            "sampler": self.generator.precision,
        }
        record = Record(
            video=video, model=self._model, settings=settings, versions=versions(), made_on=made_on, history=(first,),
            knowledge=knowledge,
        )  # fmt: skip
        return record.model_dump(mode="json")


def _duration(video: Path) -> float:
    """
    Raises:
        MediaError: naming the file.
    """
    try:
        return probe(video).duration_s
    except MediaError as error:
        raise MediaError(error.state, f"{video}: {error}") from None


def _checked_duration(seconds: float | None) -> float:
    """
    Raises:
        ValueError: no sound has this length.
    """
    if seconds is None or not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"duration_s={seconds} must be a number of seconds above 0")
    return seconds
