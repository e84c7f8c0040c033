"""The trained system: video in, sound out.

Shape letters: F token rows, T token columns of a window, N samples.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specmaskfoley import device as runtime
from specmaskfoley.encoders.features import Features
from specmaskfoley.foley.choosing import heard_by, judge
from specmaskfoley.foley.editing import Span, check_spans, columns_of, extended, find_holes, replaced, rows_above
from specmaskfoley.foley.export import file_identity, model_identity, versions
from specmaskfoley.foley.rendering import Renderer, turn_down
from specmaskfoley.foley.takes import Take
from specmaskfoley.foley.windows import plan_windows
from specmaskfoley.judges.panel import Panel
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.media.frames import stream_views
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_track, scratch_array
from specmaskfoley.sampling.generator import Generator, clip_seed
from specmaskfoley.settings import GuidanceMode, Params

Progress = Callable[[float, str], None]
"""Told the share of the work that is done, 0..1, and what is being done."""

_OVERLAP_S = 1.2
"""What a window is given of the one before; at most a third of a window."""
_SAMPLING = 0.6
"""The part of a window's time that drawing its tokens takes; the rest goes to its sound."""


class Stopped(Exception):  # noqa: N818, nothing went wrong
    """The caller's `stop` said so; nothing was written."""


@dataclass(frozen=True)
class _How:
    """How tokens are drawn."""

    text: str
    seed: int
    steps: int
    cfg_scale: float
    cfg_mode: GuidanceMode


@dataclass(frozen=True)
class _Painted:
    """Tokens (F, columns), their sound (N,), silent where no window was needed, and where windows meet, in seconds."""

    tokens: np.ndarray
    sound: np.ndarray
    seams_s: tuple[float, ...]


class Foley:
    """The trained system; see `load`."""

    def __init__(self, params: Params, device: torch.device, home: Path) -> None:
        """
        Args:
            home: the folder from which the paths in `params` count.
        """
        self.params, self.device, self.home = params, device, home.resolve()
        with contextlib.chdir(self.home):
            self.features = Features(params, device)
            self.generator = Generator(params, device)

    @classmethod
    def load(cls, source: str | Path = ".", *, device: str | None = None) -> Foley:
        """The model of a project (its folder, or its params.yaml) or of an exported folder.

        While it loads, the working directory is the model's.

        Args:
            device: in place of run.device.

        Raises:
            ValueError: naming what is missing or does not fit.
        """
        path = Path(source)
        path = path / "params.yaml" if path.is_dir() else path
        params = Params.load(path)
        if device is not None:
            params = params.model_copy(update={"run": params.run.model_copy(update={"device": device})})
        return cls(params, runtime.start(params), path.parent)

    def generate(
        self,
        video: str | Path,
        *,
        text: str = "",
        seed: int = 0,
        candidates: int = 1,
        steps: int | None = None,
        cfg_scale: float | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[Take]:
        """Sounds as long as the video, the best first.

        Args:
            text: what is heard; empty: the video alone.
            candidates: how many are drawn, with the seeds seed, seed + 1, ...; with several, judges rank them.
            steps, cfg_scale: in place of sample.steps and cfg.scale.
            stop: asked often; once it says True, `Stopped` is raised.

        Raises:
            MediaError: the video cannot be read.
            Stopped: see `stop`.
        """
        video = Path(video)
        duration_s = probe(video).duration_s
        columns = self._columns(duration_s)
        tokens = np.full((self.params.audio.token_rows, columns), -1)
        hows, watch = self._hows(text, seed, candidates, steps, cfg_scale), _Watch(progress, stop)
        made = self._paint(video, tokens, np.zeros(tokens.shape, bool), hows, watch)
        takes = []
        for how, new in zip(hows, made, strict=True):
            sound = new.sound[: max(1, math.ceil(duration_s * self.params.audio.sample_rate))]
            turn_down(sound)
            record = self._record(video, duration_s, [{"operation": "generate", **vars(how)}])
            takes.append(
                Take(
                    video, sound, self.params.audio.sample_rate, how.seed, new.tokens, None, record, seams_s=new.seams_s
                )
            )
        return self._ranked(takes, watch)

    def listen(self, video: str | Path, audio: str | Path | None = None) -> Take:
        """An existing sound, to be edited: that of a file, or the video's own.

        Raises:
            MediaError: the video or the sound cannot be read.
        """
        video = Path(video)
        duration_s = probe(video).duration_s
        source = video if audio is None else Path(audio)
        track = read_track(source)
        waveform = track.waveform[:, 0] if track.waveform.shape[1] == 1 else track.waveform
        waveform = waveform[: max(1, round(duration_s * track.sample_rate))]
        tokens = np.full((self.params.audio.token_rows, self._columns(duration_s)), -1)
        history = [{"operation": "listen", "audio": file_identity(source)}]
        record = self._record(video, duration_s, history)
        return Take(video, waveform, track.sample_rate, 0, tokens, None, record, track.subtype)

    def regenerate(
        self,
        take: Take,
        *,
        only: Span | Sequence[Span] | None = None,
        text: str = "",
        seed: int = 0,
        candidates: int = 1,
        steps: int | None = None,
        cfg_scale: float | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[Take]:
        """The take with parts of it made anew, the best first; all samples outside are kept to the bit.

        Args:
            only: from and to in seconds, or several such; None: what is digitally silent for 0.1 s and more, and what
                is missing at the end.

        Raises:
            ValueError: there is nothing to make.
            MediaError, Stopped: as `generate`.
        """
        duration_s = probe(take.video).duration_s
        if only is None:
            spans = find_holes(take.waveform, take.sample_rate, duration_s)
            if not spans:
                raise ValueError("the sound has no silent hole and is as long as the video; say what to make with only")
        else:
            several = [only] if isinstance(only[0], int | float) else only
            spans = check_spans(several, duration_s)  # type: ignore[arg-type]
        inside = columns_of(spans, self.params.audio, take.tokens.shape[1])
        known = np.tile(~inside, (len(take.tokens), 1))
        hows, watch = self._hows(text, seed, candidates, steps, cfg_scale), _Watch(progress, stop)
        made = self._paint(take.video, take.tokens, known, hows, watch, take)
        rate, takes = self.params.audio.sample_rate, []
        for how, new in zip(hows, made, strict=True):
            waveform = replaced(take.waveform, take.sample_rate, new.sound, rate, spans, duration_s)
            step = {"operation": "regenerate", "only": [list(span) for span in spans], **vars(how)}
            record = {**take.record, "history": [*take.record["history"], step]}
            takes.append(replace(take, waveform=waveform, tokens=new.tokens, seed=how.seed, record=record, scores=None))
        return self._ranked(takes, watch)

    def extend_band(
        self,
        take: Take,
        hz: float,
        *,
        text: str = "",
        seed: int = 0,
        candidates: int = 1,
        steps: int | None = None,
        cfg_scale: float | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[Take]:
        """A take of a sound that ends at `hz` with what belongs above added, the best first.

        Raises:
            ValueError: `hz` is not within what the model makes.
            MediaError, Stopped: as `generate`.
        """
        above = rows_above(hz, self.params.audio)
        known = np.tile(~above[:, None], (1, take.tokens.shape[1]))
        hows, watch = self._hows(text, seed, candidates, steps, cfg_scale), _Watch(progress, stop)
        made = self._paint(take.video, take.tokens, known, hows, watch, take)
        takes = []
        for how, new in zip(hows, made, strict=True):
            waveform, rate = extended(take.waveform, take.sample_rate, new.sound, self.params.audio.sample_rate, hz)
            step = {"operation": "extend_band", "hz": hz, **vars(how)}
            record = {**take.record, "history": [*take.record["history"], step]}
            takes.append(
                replace(
                    take,
                    waveform=waveform,
                    sample_rate=rate,
                    tokens=new.tokens,
                    seed=how.seed,
                    record=record,
                    scores=None,
                )
            )
        return self._ranked(takes, watch)

    def _hows(self, text: str, seed: int, candidates: int, steps: int | None, cfg_scale: float | None) -> list[_How]:
        if candidates < 1 or seed < 0 or (steps is not None and steps < 1):
            raise ValueError(
                f"candidates={candidates} and steps={steps} must be at least 1, and seed={seed} at least 0"
            )
        if cfg_scale is not None and not (math.isfinite(cfg_scale) and cfg_scale >= 0):
            raise ValueError(f"cfg_scale={cfg_scale} must be 0 or more")
        cfg, sample = self.params.cfg, self.params.sample
        mode = cfg.mode if text or cfg.mode == "audio" else "no_text_video"
        scale = cfg.scale if cfg_scale is None else float(cfg_scale)
        return [_How(text, seed + number, steps or sample.steps, scale, mode) for number in range(candidates)]

    def _columns(self, duration_s: float) -> int:
        audio = self.params.audio
        column_s = audio.patch * audio.hop_length / audio.sample_rate
        return max(audio.token_columns, math.ceil(duration_s / column_s))

    def _paint(
        self,
        video: Path,
        tokens: np.ndarray,
        known: np.ndarray,
        hows: Sequence[_How],
        watch: _Watch,
        given: Take | None = None,
    ) -> list[_Painted]:
        """Draw all tokens (F, columns) that are not known, once for each of `hows`.

        Args:
            given: whose sound is read as tokens, where known ones are -1.
        """
        audio = self.params.audio
        width, step = audio.token_columns, audio.patch * audio.hop_length
        overlap = min(round(_OVERLAP_S * audio.sample_rate / step), width // 3)
        starts = plan_windows(~known.all(axis=0), width, overlap)
        tokens = tokens.copy()
        if given is not None:
            for start in starts:
                self._read(tokens[:, start : start + width], given, start * step)
        grids = [(tokens.copy(), known.copy()) for _ in hows]
        renderers = [Renderer(self.generator, scratch_array(tokens.shape[1] * step)) for _ in hows]
        prompt = self.features.text_prompt([hows[0].text]).float()
        total, done = len(starts) * len(hows), 0
        watch.tell(0.0, "reading the video")
        for start, (sync, semantic) in zip(starts, self._watch_video(video, starts), strict=True):
            window = slice(start, start + width)
            for number, (how, (grid, fixed), renderer) in enumerate(zip(hows, grids, renderers, strict=True)):
                what = f"window {starts.index(start) + 1} of {len(starts)}"
                what += f", candidate {number + 1} of {len(hows)}" if len(hows) > 1 else ""
                drawn = self.generator.tokens(
                    prompt=prompt,
                    sync=sync,
                    semantic=semantic,
                    seeds=[clip_seed(how.seed, f"column {start}")],
                    mode=how.cfg_mode,
                    known=(
                        torch.from_numpy(np.maximum(grid[None, :, window], 0)),
                        torch.from_numpy(fixed[None, :, window].copy()),
                    ),
                    steps=how.steps,
                    scale=how.cfg_scale,
                    before_step=partial(watch.step, what, how.steps, done, total),
                )[0]
                grid[:, window], fixed[:, window] = drawn.cpu().numpy(), True
                watch.tell((done + _SAMPLING) / total, what)
                renderer.add(start, drawn)
                done += 1
                watch.tell(done / total, what)
        for renderer in renderers:
            renderer.finish()
            watch.tell(1.0, "finishing")
        return [
            _Painted(grid, renderer.sound, tuple(seam / audio.sample_rate for seam in renderer.seams))
            for (grid, _), renderer in zip(grids, renderers, strict=True)
        ]

    def _watch_video(self, video: Path, starts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Sync and semantic features of every window."""
        audio, features = self.params.audio, self.features
        views = (features.sync_view, features.semantic_view)
        seconds = [start * audio.patch * audio.hop_length / audio.sample_rate for start in starts]
        for frames in stream_views(video, views, seconds):
            sync, semantic = features.video(*(torch.from_numpy(frames[view])[None] for view in views))
            yield sync.float(), semantic.float()

    def _read(self, tokens: np.ndarray, take: Take, first: int) -> None:
        """Fill in the tokens (F, T) that are -1, of the take's sound from a sample of the model's rate on."""
        if (tokens >= 0).all():
            return
        audio = self.params.audio
        start_s = first / audio.sample_rate
        heard = heard_by(take.waveform, take.sample_rate, audio.sample_rate, start_s, audio.num_samples)
        read = self.generator.tokenizer.encode(torch.from_numpy(heard)[None])[0].cpu().numpy()
        np.copyto(tokens, read, where=tokens < 0)

    @cached_property
    def judges(self) -> Panel:
        """Who ranks candidates; loaded when first needed."""
        with contextlib.chdir(self.home):
            return load_panel(self.params, self.device)

    def _ranked(self, takes: list[Take], watch: _Watch) -> list[Take]:
        """The best first, with the scores of all in every record; a single take is not judged."""
        if len(takes) == 1:
            return takes
        watch.tell(1.0, "judging the candidates")
        sounds = [(take.waveform, take.sample_rate) for take in takes]
        scores = judge(self.judges, takes[0].video, takes[0].duration_s, sounds)
        order = sorted(range(len(takes)), key=lambda index: -scores[index]["overall"])
        candidates = [{"seed": takes[index].seed, **scores[index]} for index in order]
        return [
            replace(takes[index], scores=scores[index], record={**takes[index].record, "candidates": candidates})
            for index in order
        ]

    @cached_property
    def _model(self) -> dict[str, str]:
        """What the model consists of: role or name of a file to its SHA-256, or what is known of it."""
        with contextlib.chdir(self.home):
            return model_identity(self.params)

    def _record(self, video: Path, duration_s: float, history: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "video": {**file_identity(video), "duration_s": duration_s},
            "model": self._model,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "history": history,
        }


class _Watch:
    """Tells of progress, and asks whether to go on."""

    def __init__(self, progress: Progress | None, stop: Callable[[], bool] | None) -> None:
        self._progress, self._stop = progress, stop

    def step(self, message: str, steps: int, done: int, total: int, number: int) -> None:
        """A step of a window's sampling is about to begin; `done` of `total` windows are made."""
        self.tell((done + _SAMPLING * number / steps) / total, message)

    def tell(self, share: float, message: str) -> None:
        """
        Raises:
            Stopped: the caller wants no more.
        """
        if self._stop is not None and self._stop():
            raise Stopped("stopped")
        if self._progress is not None:
            self._progress(share, message)
