"""Sounds from physics: struck modes, noise bursts, bubbles, and tones that follow a curve.

Every function returns float32 samples at `sample_rate`; the render step sets the level. A sound is computed
once a clip and placed at each event, because a clip has some 10 ms for its sound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

Wave = NDArray[np.float32]

# Frequency ratios of the modes of a struck body.
WOOD = (1.0, 1.92, 2.71, 3.64, 5.13)
PLATE = (1.0, 1.73, 2.76, 4.07, 5.40, 8.93)
GLASS = (1.0, 2.32, 4.25, 6.63)
MEMBRANE = (1.0, 1.59, 2.14, 2.30, 2.65, 2.92)  # ideal circular membrane
BELL = (0.5, 1.0, 1.19, 1.5, 2.0, 2.66, 3.01, 4.1)  # hum, prime, tierce, quint, nominal, ...


def struck(frequency: float, ratios: Sequence[float], decay_s: float, sample_rate: int, tilt: float = 0.8) -> Wave:
    """Sum of decaying sines; a mode at ratio r is r**tilt weaker and dies sqrt(r) times as soon.

    `decay_s` is the time constant of the mode at ratio 1; the tail is cut at -60 dB.
    """
    ratio = np.array([r for r in ratios if r * frequency < 0.45 * sample_rate], np.float32)
    tau = decay_s / np.sqrt(ratio)
    time = np.arange(int(6.9 * tau.max() * sample_rate), dtype=np.float32) / np.float32(sample_rate)
    out = np.zeros(len(time), np.float32)
    for r, t in zip(ratio, tau, strict=True):
        part = time[: int(6.9 * t * sample_rate)]
        out[: len(part)] += np.sin(np.float32(2 * np.pi * r * frequency) * part) * np.exp(part / -t) * r**-tilt
    return _unit(out)


def burst(rng: np.random.Generator, band: tuple[float, float], decay_s: float, sample_rate: int) -> Wave:
    """Band-passed noise with a sharp attack and an exponential decay."""
    count = int(6.9 * decay_s * sample_rate)
    envelope = np.exp(np.arange(count) / (-decay_s * sample_rate))
    out = np.asarray(noise(rng, count, band, sample_rate) * envelope, np.float32)
    return _unit(out)


def noise(rng: np.random.Generator, samples: int, band: tuple[float, float], sample_rate: int) -> Wave:
    """Noise between two frequencies in Hz, unit RMS before the filter."""
    white = rng.standard_normal(samples, dtype=np.float32)
    edges = (max(band[0], 10.0), min(band[1], 0.45 * sample_rate))
    sections = butter(1, edges, "bandpass", fs=sample_rate, output="sos").astype(np.float32)
    return np.asarray(sosfilt(sections, white), np.float32)


def crunch(rng: np.random.Generator, centre: float, sample_rate: int) -> Wave:
    """A foot on gravel: grains of noise that come ever more rarely over 150 ms."""
    out = burst(rng, (0.5 * centre, 2.2 * centre), 0.05, sample_rate)
    grain = np.exp(np.arange(int(0.012 * sample_rate)) / (-0.003 * sample_rate)).astype(np.float32)
    hits = np.zeros(len(out), np.float32)
    hits[(rng.exponential(0.05, 24) * sample_rate).astype(int) % len(out)] = rng.uniform(0.3, 1.0, 24)
    out *= 0.25 + np.convolve(hits, grain)[: len(out)]
    out[: len(grain)] += 0.6 * noise(rng, len(grain), (80, 400), sample_rate) * grain
    return _unit(out)


def bubble(frequency: float, sample_rate: int, decay_s: float = 0.045, rise: float = 9.0) -> Wave:
    """A drop's bubble: a sine that rises by `rise` times its frequency a second while it dies."""
    time = np.arange(int(6.9 * decay_s * sample_rate)) / sample_rate
    tone: Wave = np.sin(2 * np.pi * frequency * (time + 0.5 * rise * time**2)) * np.exp(-time / decay_s)
    return tone.astype(np.float32)


def tone(frequency: NDArray[np.float64], harmonics: Sequence[float], sample_rate: int) -> Wave:
    """Harmonic tone along a curve. frequency: (samples,) Hz; harmonics: amplitudes of 1, 2, 3, ... times it.

    One period is tabulated: a sine a harmonic and sample would cost more than the rest of the clip.
    """
    turn = 2 * np.pi * np.arange(2048) / 2048
    period = sum(a * np.sin((k + 1) * turn + k * k) for k, a in enumerate(harmonics))
    table = _unit(np.asarray(period, np.float32))
    phase = np.cumsum(frequency * (2048 / sample_rate)).astype(np.int64) & 2047
    return np.asarray(table[phase], np.float32)


def place(
    sounds: Sequence[Wave], events: NDArray[np.float64], gains: NDArray[np.float64], samples: int, sample_rate: int
) -> Wave:
    """Track of `samples` with sounds[i % len(sounds)] starting at events[i] seconds, times gains[i]."""
    track = np.zeros(samples, np.float32)
    for index, (event, gain) in enumerate(zip(events, gains, strict=True)):
        start = round(event * sample_rate)
        sound = sounds[index % len(sounds)][: samples - start]
        track[start : start + len(sound)] += np.float32(gain) * sound
    return track


def add(*layers: Wave) -> Wave:
    """Sum of sounds that start together and end at different times."""
    out = np.zeros(max(len(layer) for layer in layers), np.float32)
    for layer in layers:
        out[: len(layer)] += layer
    return out


def _unit(wave: Wave) -> Wave:
    return np.asarray(wave / np.abs(wave).max(), np.float32)
