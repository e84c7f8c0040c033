"""Videos and sounds whose times can be read off: frame i by its grey level, a moment of the sound by a click."""

from fractions import Fraction

import av
import numpy as np

RATE = 16000


def grey(i, height=32, width=48):
    return np.full((height, width, 3), 20 + (i * 5) % 210, np.uint8)


def index(frames):
    """Frame numbers (below 42) from grey levels; write with a low crf."""
    return [round((float(frame.mean()) - 20) / 5) for frame in frames]


def make(
    path,
    pts_ms=range(0, 1000, 40),
    *,
    audio_start_s=0.0,
    audio=None,
    rate=RATE,
    layout="mono",
    codec="libx264",
    audio_codec="aac",
    size=(32, 48),
    rotate=0,
    bframes=2,
    options=None,
):
    """A video whose frame i is shown from pts_ms[i] on, and `audio` (channels, n) from audio_start_s on."""
    with av.open(str(path), "w", options=options or {}) as container:
        x264 = {"crf": "1", "bf": str(bframes)} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=x264)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotate:
            stream.set_display_rotation(rotate)
        sound = None if audio is None else container.add_stream(audio_codec, rate=rate, layout=layout)
        for i, pts in enumerate(pts_ms):
            frame = av.VideoFrame.from_ndarray(grey(i, *size), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio, np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(audio_start_s * rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def clicks(seconds, at, rate=RATE, channels=1):
    """Short tone bursts: AAC keeps their place to a few samples, unlike single impulses."""
    wave = np.zeros((channels, round(seconds * rate)), np.float32)
    burst = np.sin(np.arange(rate // 100) * 0.4) * np.hanning(rate // 100)
    for time in at:
        wave[:, round(time * rate) : round(time * rate) + len(burst)] += 0.8 * burst
    return wave


def place(wave, rate):
    """Centre of the first burst, in seconds from where its onset was put."""
    energy = wave[: len(wave)] ** 2
    return float((energy * np.arange(len(wave))).sum() / energy.sum() / rate) - 0.005
