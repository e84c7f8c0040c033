"""Tokens that are not known are drawn window by window, with the known ones and the video as context.

Shape letters: F token rows, T token columns of a window, Q prompts, P prompt width, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from specmaskfoley.encoders.features import Features
from specmaskfoley.foley.choosing import heard_by
from specmaskfoley.foley.prompts import Prompt, embed
from specmaskfoley.foley.rendering import Renderer
from specmaskfoley.foley.takes import Take
from specmaskfoley.foley.windows import plan_windows
from specmaskfoley.media.frames import stream_views
from specmaskfoley.media.sound import scratch_array
from specmaskfoley.sampling.generator import Generator, clip_seed
from specmaskfoley.settings import Sampling

Progress = Callable[[float, str], None]
"""Called with the share of the work that is done, 0..1, and what is being done."""

_OVERLAP_S = 1.2
"""What a window shares with the one before; at most a third of a window."""
_SAMPLING = 0.6
"""The part of a window's time that drawing its tokens takes; the rest goes to its sound."""


class Stopped(Exception):  # noqa: N818, nothing went wrong
    """The caller's `stop` returned True; nothing was written."""


@dataclass(frozen=True)
class Watch:
    """Reports progress, and asks whether to go on."""

    progress: Progress | None
    stop: Callable[[], bool] | None

    def step(self, message: str, steps: int, done: int, total: int, number: int) -> None:
        """A step of a window's sampling is about to begin; `done` of `total` windows are made."""
        self.report((done + _SAMPLING * number / steps) / total, message)

    def report(self, share: float, message: str) -> None:
        """
        Raises:
            Stopped: the caller wants no more.
        """
        if self.stop is not None and self.stop():
            raise Stopped("stopped")
        if self.progress is not None:
            self.progress(share, message)


@dataclass(frozen=True)
class Request:
    """What is to be drawn: one prompt, and the sampling of each candidate."""

    prompt: Prompt
    samplings: Sequence[Sampling]
    watch: Watch


@dataclass(frozen=True)
class Candidate:
    """A sound in the making: its tokens (F, columns), which of them are settled (bool), and what renders them."""

    sampling: Sampling
    tokens: np.ndarray
    settled: np.ndarray
    renderer: Renderer
    sample_rate: int

    @property
    def sound(self) -> np.ndarray:
        """(N,); silent where no window was needed."""
        return self.renderer.sound

    @property
    def seams_s(self) -> tuple[float, ...]:
        """Seconds at which windows meet."""
        return tuple(seam / self.sample_rate for seam in self.renderer.seams)


class Inpainter:
    """Draws tokens of a video of any length, and renders them."""

    def __init__(self, features: Features, generator: Generator) -> None:
        self._features, self._generator = features, generator
        self._audio, self._grid = generator.params.audio, generator.params.grid
        self._step = self._grid.step
        """Samples of a token column."""

    def draw(
        self, video: Path | None, tokens: np.ndarray, known: np.ndarray, request: Request, given: Take | None = None
    ) -> list[Candidate]:
        """Draw all tokens (F, columns) that are not known, once for each sampling of the request.

        Args:
            known: (F, columns) bool.
            given: a take whose sound is read as tokens, where known ones are -1.
        """
        audio, watch = self._audio, request.watch
        width = self._grid.columns
        overlap = min(round(_OVERLAP_S * audio.sample_rate / self._step), width // 3)
        starts = plan_windows(~known.all(axis=0), width, overlap)
        tokens = tokens.copy()
        if given is not None:
            for start in starts:
                self._read(tokens[:, start : start + width], given, start * self._step)
        candidates = [self._candidate(sampling, tokens, known) for sampling in request.samplings]
        prompt, negative = embed(request.prompt, self._features)
        at = self._prompt_at(request.prompt, tokens.shape[1])
        total, done = len(starts) * len(candidates), 0
        watch.report(0.0, "reading the video" if video is not None else "drawing")
        for window, (start, seen) in enumerate(zip(starts, self._video_features(video, starts), strict=True), start=1):
            for number, candidate in enumerate(candidates, start=1):
                what = f"window {window} of {len(starts)}"
                what += f", candidate {number} of {len(candidates)}" if len(candidates) > 1 else ""
                steps = sum(candidate.sampling.steps_of(self._generator.params.backbone.levels))
                before_step = partial(watch.step, what, steps, done, total)
                drawn = self._fill(candidate, start, prompt, at, negative, seen, before_step)
                watch.report((done + _SAMPLING) / total, what)
                candidate.renderer.add(start, drawn)
                done += 1
                watch.report(done / total, what)
        for candidate in candidates:
            candidate.renderer.finish()
            watch.report(1.0, "finishing")
        return candidates

    def _candidate(self, sampling: Sampling, tokens: np.ndarray, known: np.ndarray) -> Candidate:
        renderer = Renderer(self._generator, scratch_array(tokens.shape[1] * self._step))
        return Candidate(sampling, tokens.copy(), known.copy(), renderer, self._audio.sample_rate)

    def _fill(
        self,
        candidate: Candidate,
        start: int,
        prompt: Tensor,
        at: Tensor | None,
        negative: Tensor | None,
        seen: tuple[Tensor, Tensor] | tuple[None, None],
        before_step: Callable[[int], None],
    ) -> Tensor:
        """Draw a window's open tokens, settle them, and return all of the window: (F, T)."""
        window = np.s_[:, start : start + self._grid.columns]
        tokens, settled = candidate.tokens[window], candidate.settled[window]
        known = None  # from nothing the sampler is quicker: its first step is the same for all
        if settled.any():
            known = torch.from_numpy(np.maximum(tokens, 0))[None], torch.from_numpy(settled.copy())[None]
        drawn = self._generator.tokens(
            prompt=prompt if at is None else prompt[None],
            at=None if at is None else at[window][None],
            negative=None if negative is None else negative[None],
            sync=seen[0],
            semantic=seen[1],
            seeds=[clip_seed(candidate.sampling.seed, f"column {start}")],
            sampling=candidate.sampling,
            known=known,
            before_step=before_step,
        )[0]
        tokens[:], settled[:] = drawn.cpu().numpy(), True
        return drawn

    def _prompt_at(self, prompt: Prompt, columns: int) -> Tensor | None:
        """Which prompt each token takes: (F, columns)."""
        centres_s = (np.arange(columns) + 0.5) * self._step / self._audio.sample_rate
        found = prompt.columns(centres_s)
        return None if found is None else torch.from_numpy(found).expand(self._grid.rows, -1)

    def _video_features(
        self, video: Path | None, starts: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor] | tuple[None, None]]:
        """Sync (1, t, d) and semantic (1, u, d) features of every window."""
        if video is None:
            yield from [(None, None)] * len(starts)
            return
        features = self._features
        views = (features.sync_view, features.semantic_view)
        seconds = [start * self._step / self._audio.sample_rate for start in starts]
        for frames in stream_views(video, views, seconds):
            sync, semantic = features.video(*(torch.from_numpy(frames[view])[None] for view in views))
            yield sync.float(), semantic.float()

    def _read(self, tokens: np.ndarray, take: Take, first: int) -> None:
        """Fill in the tokens (F, T) that are -1, from the take's sound; `first` is a sample at the model's rate."""
        if (tokens >= 0).all():
            return
        audio = self._audio
        start_s = first / audio.sample_rate
        heard = heard_by(take.waveform, take.sample_rate, audio.sample_rate, start_s, audio.num_samples)
        read = self._generator.tokenizer.encode(torch.from_numpy(heard)[None])[0].cpu().numpy()
        np.copyto(tokens, read, where=tokens < 0)
