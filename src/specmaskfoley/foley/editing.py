"""Parts of an existing sound are replaced, and the rest is kept to the bit.

Shape letters: N samples of the sound, C its channels, S samples at the model's rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from specmaskfoley.foley.rendering import FADE_S, crossfade, turn_down
from specmaskfoley.media.mel import mel_filters
from specmaskfoley.media.sound import resample, resample_part, scratch_array
from specmaskfoley.settings import Params

Span = tuple[float, float]
"""Seconds, from and to."""

_SILENCE = 2.0**-15
"""At most one step of 16 bits: digital silence, and so a hole."""
_SHORTEST_HOLE_S = 0.1
_BLOCK = 1 << 19
_TAPS = 511


def check_spans(spans: Sequence[Span], duration_s: float) -> list[Span]:
    """Spans in order, joined where they touch, cut at the end of the video.

    Raises:
        ValueError: a span is empty, or begins after the end.
    """
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if not (math.isfinite(begin) and math.isfinite(end) and 0 <= begin < end):
            raise ValueError(f"only={begin:g}-{end:g}: expected seconds from 0 on, the earlier first, as 3.2-5.0")
        if begin >= duration_s:
            raise ValueError(f"only={begin:g}-{end:g}: the video ends at {duration_s:.2f} s")
        end = min(end, duration_s)
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


def find_holes(waveform: np.ndarray, sample_rate: int, duration_s: float) -> list[Span]:
    """Stretches of digital silence of 0.1 s and more, and what is missing at the end."""
    holes: list[Span] = []
    begin, shortest = None, round(_SHORTEST_HOLE_S * sample_rate)
    total = min(len(waveform), round(duration_s * sample_rate))
    for first in range(0, total, _BLOCK):
        block = np.abs(waveform[first : min(first + _BLOCK, total)])
        silent = (block if block.ndim == 1 else block.max(axis=1)) <= _SILENCE
        edges = np.flatnonzero(np.diff(silent)) + 1
        for at, quiet in zip([0, *edges], silent[[0, *edges]], strict=True):
            if quiet and begin is None:
                begin = first + at
            elif not quiet and begin is not None:
                if first + at - begin >= shortest:
                    holes.append((begin / sample_rate, (first + at) / sample_rate))
                begin = None
    begin = total if begin is None else begin
    if duration_s * sample_rate - begin >= 1 and (
        duration_s - begin / sample_rate >= _SHORTEST_HOLE_S or begin == total
    ):
        # The fade begins before the end: after it there is nothing to fade from.
        lead = FADE_S if begin == total else 0.0
        holes.append((max(0.0, begin / sample_rate - lead), duration_s))
    return holes


def columns_of(spans: Sequence[Span], width_s: float, columns: int) -> np.ndarray:
    """(columns,) bool: the token columns, `width_s` seconds each, that lie in a span, at least partly."""
    inside = np.zeros(columns, bool)
    for begin, end in spans:
        inside[math.floor(begin / width_s) : math.ceil(end / width_s)] = True
    return inside


def rows_above(hz: float, params: Params) -> np.ndarray:
    """(F,) bool: the token rows that hold bands above a frequency; row 0 is the lowest.

    Raises:
        ValueError: there is none, or nothing but those; or the rows are no bands.
    """
    audio, codec = params.audio, params.codec
    if not codec.bands:
        raise ValueError(
            f"--extend-band {hz:g} (hz): the tokens of codec.kind={codec.kind} are no bands of a spectrogram; take a "
            "model whose codec is specvqgan"
        )
    bins = (mel_filters(audio).view(params.grid.rows, audio.patch, -1) > 0).any(dim=1).numpy()
    tops = np.array([np.flatnonzero(row)[-1] for row in bins]) * (audio.sample_rate / audio.n_fft)
    above = tops > hz
    if not above.any() or above.all():
        raise ValueError(
            f"--extend-band {hz:g} (hz): expected a frequency between {tops[0]:.0f} Hz, below which lies what the "
            f"model is given, and {audio.fmax:g} Hz, above which it makes none"
        )
    return above


def replaced(
    base: np.ndarray, rate: int, new: np.ndarray, new_rate: int, spans: Sequence[Span], duration_s: float
) -> np.ndarray:
    """A copy of `base`, (N,) or (N, C), with `new` (S,) inside the spans; all samples outside are those of `base`.

    The cross-fades lie inside the spans. After its end the base is silent.
    """
    length = max(len(base), round(duration_s * rate))
    result = scratch_array(length, *base.shape[1:])
    for first in range(0, len(base), _BLOCK):
        result[first : first + _BLOCK][: len(base) - first] = base[first : first + _BLOCK]
    for begin, end in spans:
        first, last = round(begin * rate), min(round(end * rate), length)
        made = resample_part(new, new_rate, rate, first, last - first)
        turn_down(made)
        made = made if base.ndim == 1 else np.repeat(made[:, None], base.shape[1], axis=1)
        old, fade = result[first:last], min(round(FADE_S * rate), (last - first) // 2)
        if first > 0:
            made[:fade] = crossfade(old[:fade], made[:fade])
        if last < length:
            made[-fade:] = crossfade(old[-fade:][::-1], made[-fade:][::-1])[::-1]
        result[first:last] = made
    return result


def extended(base: np.ndarray, rate: int, new: np.ndarray, new_rate: int, hz: float) -> tuple[np.ndarray, int]:
    """`base`, (N,) or (N, C), with what `new` (S,) has above a frequency added; at the model's rate where that is
    higher.
    """
    from scipy import signal  # takes half a second: only where needed

    out_rate = max(rate, new_rate)
    base = resample(base, rate, out_rate)
    result = scratch_array(*base.shape)
    high = signal.firwin(_TAPS, hz, fs=out_rate, pass_zero="highpass").astype(np.float32)
    margin = _TAPS // 2
    for first in range(0, len(base), _BLOCK):
        old = base[first : first + _BLOCK]
        made = resample_part(new, new_rate, out_rate, first - margin, len(old) + 2 * margin)
        made = signal.oaconvolve(made, high, mode="valid").astype(np.float32)
        result[first : first + len(old)] = old + (made if base.ndim == 1 else made[:, None])
    turn_down(result)
    return result, out_rate
