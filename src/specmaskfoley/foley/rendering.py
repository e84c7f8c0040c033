"""From windows of tokens to one sound without seams.

Neighbouring windows decode the tokens that they share to slightly different frames (mels, where the codec normalises
over its window): these are cross-faded over all of the shared columns, and both windows get their sound from the
result. The waves still differ in phase: they are joined by a short cross-fade where they differ least.

Shape letters: F token rows, T token columns of a window, C channels of a frame, S samples of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from specmaskfoley.sampling.generator import Generator

PEAK = 0.98
FADE_S = 0.02


class Renderer:
    """Decodes windows of tokens, one after the other, into `sound` (samples,)."""

    def __init__(self, generator: Generator, sound: np.ndarray) -> None:
        self._tokenizer, self.sound = generator.tokenizer, sound
        audio, self._column = generator.params.audio, generator.params.grid.step
        self._fade, self._edge = round(FADE_S * audio.sample_rate), audio.n_fft // 2
        self._start, self._end = 0, 0
        """In samples: where the window that is not heard yet starts, and where the sound ends."""
        self._frames: Tensor | None = None
        self.seams: list[int] = []
        """In samples: where waves of windows were joined, and where tokens of a later window begin."""

    @torch.inference_mode()
    def add(self, column: int, tokens: Tensor) -> None:
        """The next window: tokens (F, T) from `column` on."""
        frames = self._tokenizer.frames(tokens[None])[0]
        start = column * self._column
        if self._frames is not None:
            apart = (start - self._start) // self._column * self._tokenizer.frames_per_column
            shared = self._frames.shape[1] - apart
            if shared > 0:
                ramp = torch.linspace(0.0, 1.0, shared, device=frames.device)
                blend = torch.lerp(self._frames[:, -shared:], frames[:, :shared], ramp)
                self._frames[:, -shared:] = blend
                frames = torch.cat([blend, frames[:, shared:]], dim=1)
            self._hear()
        self._frames, self._start = frames, start

    def finish(self) -> None:
        """Make the sound of the last window."""
        if self._frames is not None:
            self._hear()
            self._frames = None

    @torch.inference_mode()
    def _hear(self) -> None:
        assert self._frames is not None
        wave = self._tokenizer.sound(self._frames[None])[0].float().cpu().numpy()[: len(self.sound) - self._start]
        old = self.sound[self._start : min(self._end, self._start + len(wave))]
        at = self._join(old, wave)
        self.sound[self._start + at : self._start + len(wave)] = wave[at:]
        self._end = self._start + len(wave)

    def _join(self, old: np.ndarray, new: np.ndarray) -> int:
        """Fade `new` in where it differs least from `old`; returns from where on it is alone."""
        if len(old) < self._fade + 2 * self._edge:  # the first window, or one after a gap
            return 0
        inner = slice(self._edge, len(old) - self._edge)  # vocoders are inaccurate at the ends
        squares = np.concatenate([[0.0], np.cumsum((old[inner] - new[: len(old)][inner]).astype(np.float64) ** 2)])
        at = self._edge + int(np.argmin(squares[self._fade :] - squares[: -self._fade]))
        old[at : at + self._fade] = crossfade(old[at : at + self._fade], new[at : at + self._fade])
        self.seams += [self._start + at + self._fade // 2, self._start + len(old)]
        return at + self._fade


def crossfade(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """From `old` to `new`, (samples, ...), at constant power: equal waves fade linearly, unrelated ones by power."""
    up = np.linspace(0.0, 1.0, len(new) + 2, dtype=np.float32)[1:-1].reshape(-1, *(1,) * (new.ndim - 1))
    down = 1 - up
    energy = float(np.sqrt(np.square(old, dtype=np.float64).sum() * np.square(new, dtype=np.float64).sum()))
    alike = float(np.multiply(old, new, dtype=np.float64).sum()) / energy if energy > 0 else 1.0
    power = up**2 + down**2 + 2 * up * down * min(1.0, max(0.0, alike))
    return np.asarray((old * down + new * up) / np.sqrt(power), np.float32)


def turn_down(sound: np.ndarray) -> None:
    """Turn the whole sound down where its peak is above PEAK: phase reconstruction overshoots now and then."""
    peak = float(max(np.max(sound, initial=0.0), -np.min(sound, initial=0.0)))
    if peak > PEAK:
        sound *= PEAK / peak
