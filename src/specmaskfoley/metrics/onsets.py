"""Onset F1: do the generated sounds start when the events happen?

The paper measures timing with a learned judge only (DeSync); where the true event times are known, an onset
detector says the same without a network. Its settings were fixed before any model was trained and are the
same for every system.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.judged import Listened, Partners

Array = npt.NDArray[np.float64]

WINDOW_S = 0.046  # 1024 samples at 22.05 kHz
HOP_S = 0.0116  # 256 samples at 22.05 kHz
BANDS = 40
FMIN, FMAX = 30.0, 8000.0  # the vocoders' mel ends at 8 kHz; what lies above would favour the true audio
FLOOR_DB = -60.0  # below the clip's loudest band: neither noise floors nor vocoder hiss count as rises
SILENCE_RMS = 1e-4  # a clip this quiet throughout has no onsets
LAG = 2  # frames between the two spectra compared: a rise may take 23 ms
LOCAL_MEAN_S = 0.4  # half width of the neighbourhood that sets the threshold
DELTA_DB = 2.5  # mean rise over all bands above the local mean
MIN_GAP_S = 0.1


def onset_f1_scores(heard: Listened, partners: Partners) -> Array | None:
    """The metric, clip by clip; NaN for a clip without a true event (rain, engines)."""
    if partners.events is None:
        return None
    scores = [
        onset_f1(events, onsets.tolist(), partners.tolerance_s) if events else math.nan
        for events, onsets in zip(partners.events, heard.onsets, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def onset_strength(waveform: npt.ArrayLike, sample_rate: int) -> tuple[Array, Array]:
    """Half-wave rectified spectral flux of a log band spectrogram, mean over bands in dB.

    Only whole windows count: padding would make an onset of every sound that is already there at 0 s. An event
    in the first 50 ms therefore has no onset.

    Returns:
        (frames,) strength, and (frames,) times of the windows' centres in seconds.
    """
    from scipy import ndimage, signal

    wave = np.asarray(waveform, dtype=np.float64)
    if wave.ndim != 1:
        raise ValueError(f"waveform has shape {wave.shape}: expected one channel, (samples,)")
    if not np.isfinite(wave).all():
        raise ValueError("waveform holds NaN or infinite values")
    hop, window = round(HOP_S * sample_rate), round(WINDOW_S * sample_rate)
    if wave.size < window + LAG * hop or np.sqrt(np.square(wave).mean()) < SILENCE_RMS:
        return np.zeros(0), np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    power = np.abs(np.fft.rfft(frames * signal.get_window("hann", window), axis=1)) ** 2
    decibel = 10 * np.log10(np.maximum(power @ _band_weights(window, sample_rate), 1e-20))
    decibel = np.maximum(decibel, decibel.max() + FLOOR_DB)
    # Comparing with the loudest of three neighbouring bands keeps vibrato from counting as rises (SuperFlux).
    before = ndimage.maximum_filter1d(decibel, 3, axis=1)
    flux = np.zeros(len(decibel))
    flux[LAG:] = np.maximum(decibel[LAG:] - before[:-LAG], 0).mean(axis=1)
    return flux, (np.arange(len(flux)) * hop + window / 2) / sample_rate


def detect_onsets(waveform: npt.ArrayLike, sample_rate: int = 22050) -> Array:
    """Times in seconds, ascending, at which a sound starts.

    Args:
        waveform: (samples,), any loudness: the result does not depend on the gain.
    """
    from scipy import ndimage, signal

    flux, times = onset_strength(waveform, sample_rate)
    if len(flux) == 0:
        return np.zeros(0)
    step_s = round(HOP_S * sample_rate) / sample_rate
    reach, gap = round(LOCAL_MEAN_S / step_s), max(1, round(MIN_GAP_S / step_s))
    threshold = ndimage.uniform_filter1d(flux, 2 * reach + 1, mode="nearest") + DELTA_DB
    peaks, _ = signal.find_peaks(flux, height=threshold, distance=gap)
    return np.asarray(times[peaks])


def match_onsets(reference: Sequence[float], detected: Sequence[float], tolerance_s: float) -> int:
    """Largest number of one-to-one pairs no further apart than the tolerance.

    With both lists ascending, the earliest two that fit are always safe to pair: an exchange argument shows
    that this greedy walk is optimal for intervals of equal width on a line.
    """
    if tolerance_s < 0:
        raise ValueError(f"tolerance_s={tolerance_s}: expected at least 0")
    true, found = sorted(reference), sorted(detected)
    i = j = pairs = 0
    while i < len(true) and j < len(found):
        if abs(true[i] - found[j]) <= tolerance_s:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif true[i] < found[j]:
            i += 1
        else:
            j += 1
    return pairs


def onset_f1(reference: Sequence[float], detected: Sequence[float], tolerance_s: float) -> float:
    """F1 of one clip's detected onsets, the harmonic mean of precision and recall.

    Both empty is full agreement (1); one empty is none (0).
    """
    if len(reference) == 0 and len(detected) == 0:
        return 1.0
    return 2 * match_onsets(reference, detected, tolerance_s) / (len(reference) + len(detected))


def _band_weights(window: int, sample_rate: int) -> Array:
    """(bins, bands) triangles evenly spaced on the mel scale, each summing to one."""
    frequencies = np.fft.rfftfreq(window, 1 / sample_rate)
    top = min(FMAX, sample_rate / 2)
    low_mel, high_mel = (2595 * math.log10(1 + f / 700) for f in (FMIN, top))
    edges = 700 * (10 ** (np.linspace(low_mel, high_mel, BANDS + 2) / 2595) - 1)
    rising = (frequencies[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.clip(np.minimum(rising, falling), 0, None)
    weights = weights[:, weights.sum(axis=0) > 0]  # the lowest triangles can fall between two bins
    return np.asarray(weights / weights.sum(axis=0))
