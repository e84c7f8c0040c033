"""Sound by its timestamps, resampled, and its levels."""

import av
import numpy as np
import pytest
import soundfile
from helpers.timed_media import RATE, clicks, make, place

from specmaskfoley.media.container import MediaError
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import SoundFacts, examine_sound, examine_track, read_audio
from specmaskfoley.media.writing import write_audio


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mov", "aac"), ("a.mkv", "aac"), ("a.mkv", "libmp3lame"), ("a.mkv", "flac")],
)
def test_late_sound_stays_late(tmp_path, name, codec):
    path = make(tmp_path / name, audio=clicks(0.7, [0.2]), audio_start_s=0.3, audio_codec=codec)
    # MP4 says that the track starts with the encoder's priming, one AAC frame before the sound.
    assert probe(path).audio_start_s == pytest.approx(0.3, abs=0.002 if name == "a.mkv" else 0.066)
    for rate in (RATE, 22050):
        wave = read_audio(path, sample_rate=rate, num_samples=rate)
        assert place(wave, rate) == pytest.approx(0.5, abs=0.002)
        assert np.abs(wave[: int(0.28 * rate)]).max() < 0.01


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a"])
def test_sound_files(tmp_path, suffix):
    wave = clicks(1, [0.25], 44100)
    path = tmp_path / f"a{suffix}"
    if suffix in (".wav", ".flac"):
        write_audio(path, wave[0], 44100)
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac" if suffix == ".m4a" else "libmp3lame", rate=44100, layout="mono")
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    for rate in (44100, 22050, 48000):
        assert place(read_audio(path, sample_rate=rate, num_samples=rate), rate) == pytest.approx(0.25, abs=0.001)
    with pytest.raises(MediaError) as error:
        probe(path)
    assert error.value.state == "no_video"


def test_integers_keep_every_bit_and_one_is_clipped(tmp_path):
    wave = np.array([0, 0.5, -0.5, 1.0, 1.5, -1.0, -2, 1 / 32768], np.float32)
    for name in ("a.wav", "a.flac"):
        write_audio(tmp_path / name, wave, RATE)
        back = read_audio(tmp_path / name, sample_rate=RATE, num_samples=8)
        top = 32767 / 32768
        np.testing.assert_array_equal(back, np.float32([0, 0.5, -0.5, top, top, -1, -1, 1 / 32768]))
    soundfile.write(tmp_path / "u8.wav", wave[:3], RATE, subtype="PCM_U8")
    back = read_audio(tmp_path / "u8.wav", sample_rate=RATE, num_samples=3)
    np.testing.assert_allclose(back, wave[:3], atol=0.01)
    with pytest.raises(ValueError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.ogg", wave, RATE)
    with pytest.raises(ValueError, match="finite"):
        write_audio(tmp_path / "a.wav", np.array([np.nan]), RATE)


@pytest.mark.parametrize("layout", ["stereo", "5.1"])
def test_mono_is_the_mean_of_the_channels(tmp_path, layout):
    channels = 2 if layout == "stereo" else 6
    audio = np.zeros((channels, RATE), np.float32)
    audio[-1] = 0.6 * np.sin(np.arange(RATE) * 0.2)
    path = make(tmp_path / "a.mkv", audio=audio, layout=layout, audio_codec="flac")
    wave = read_audio(path, sample_rate=RATE, num_samples=RATE)
    np.testing.assert_allclose(wave, audio.mean(axis=0), atol=1e-3)
    assert probe(path).audio_channels == channels


def test_sound_is_scaled_to_a_peak(tmp_path):
    path, wave = tmp_path / "sound.wav", np.sin(np.arange(800) * 0.3).astype(np.float32) * 0.1
    write_audio(path, np.concatenate([wave, 3 * wave]), 8000, "PCM_24")
    plain = read_audio(path, sample_rate=8000, num_samples=800)
    scaled = read_audio(path, sample_rate=8000, num_samples=800, peak=0.95)
    assert np.abs(scaled).max() == pytest.approx(0.95)
    np.testing.assert_allclose(scaled, plain * (0.95 / np.abs(plain).max()), rtol=1e-6)
    write_audio(path, np.zeros(800, np.float32), 8000)
    assert not read_audio(path, sample_rate=8000, num_samples=800, peak=0.95).any()


def test_cut_pad_and_start(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44100).astype(np.float32)
    path = tmp_path / "a.wav"
    write_audio(path, noise, 44100)
    for rate in (44100, 22050, 48000, 16000):
        whole = read_audio(path, sample_rate=rate, num_samples=2 * rate)
        assert whole.shape == (2 * rate,)
        assert not whole[rate + 200 :].any()
        np.testing.assert_allclose(
            read_audio(path, sample_rate=rate, num_samples=rate // 2), whole[: rate // 2], atol=1e-6
        )
        part = read_audio(path, sample_rate=rate, num_samples=rate // 4, start_s=0.5)
        np.testing.assert_allclose(part, whole[rate // 2 : rate // 2 + rate // 4], atol=1e-6)
        before = read_audio(path, sample_rate=rate, num_samples=rate, start_s=-0.5)
        np.testing.assert_allclose(before[rate // 2 + 200 :], whole[200 : rate // 2], atol=1e-6)
    assert read_audio(path, sample_rate=44100, num_samples=0).shape == (0,)


KAISER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


@pytest.mark.parametrize(("resampling", "options"), [("kaiser", KAISER), ("hann", {})])
@pytest.mark.parametrize(("rate", "to"), [(44100, 22050), (48000, 22050), (44100, 16000), (16000, 22050)])
def test_resampling_is_torchaudios(tmp_path, rate, to, resampling, options):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchaudio.functional")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, rate).astype(np.float32)
    write_audio(tmp_path / "a.wav", wave, rate)
    whole = torch.from_numpy(read_audio(tmp_path / "a.wav", sample_rate=rate, num_samples=rate))
    expected = functional.resample(whole, rate, to, **options)
    ours = read_audio(tmp_path / "a.wav", sample_rate=to, num_samples=to, resampling=resampling)
    np.testing.assert_allclose(ours, expected[:to], atol=5e-5)  # torchaudio computes its filter in float32


def test_sound_is_examined_up_to_a_moment(tmp_path):
    wave = np.zeros(3 * RATE, np.float32)
    wave[RATE] = -0.5
    write_audio(tmp_path / "a.wav", wave, RATE)
    assert examine_sound(tmp_path / "a.wav", 10.0) == SoundFacts(3.0, RATE, 0.5, True)
    assert examine_sound(tmp_path / "a.wav", 2.0).duration_s == 2.0
    wave[5], wave[6] = np.nan, np.inf
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    assert examine_sound(tmp_path / "nan.wav", 10.0) == SoundFacts(3.0, RATE, 0.5, False)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(MediaError):
        examine_sound(tmp_path / "text.wav", 10.0)


def test_a_track_is_examined_in_windows(tmp_path):
    wave = np.concatenate([np.full(RATE, 0.5), np.zeros(RATE), np.full(RATE // 2, -0.25)]).astype(np.float32)
    write_audio(tmp_path / "a.wav", wave, RATE)
    track = examine_track(tmp_path / "a.wav", 1.0)
    assert (track.start_s, track.end_s, track.sample_rate, track.channels) == (0, 2.5, RATE, 1)
    assert [(window.number, window.peak, window.finite) for window in track.windows] == [
        (0, 0.5, True),
        (1, 0.0, True),
        (2, 0.25, True),
    ]


def test_nan_counts_in_its_window_only(tmp_path):
    wave = np.full(2 * RATE, 0.5, np.float32)
    wave[RATE + 10] = np.nan
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    track = examine_track(tmp_path / "a.wav", 1.0)
    assert [(window.peak, window.finite) for window in track.windows] == [(0.5, True), (0.5, False)]


def test_a_late_track_keeps_its_time(tmp_path):
    path = make(tmp_path / "a.mkv", audio=clicks(0.7, [0.2]), audio_start_s=0.3, audio_codec="flac")
    track = examine_track(path, 0.4)
    assert track.start_s == pytest.approx(0.3, abs=0.002)
    assert track.end_s == pytest.approx(1.0, abs=0.002)
    assert [window.number for window in track.windows if window.peak > 0.1] == [1]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".opus", ".aac"])
def test_a_sought_part_is_that_of_the_whole(tmp_path, suffix):
    rate = 24000
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * rate).astype(np.float32)
    write_audio(tmp_path / "in.wav", noise, rate)
    path = tmp_path / f"a{suffix}"
    if suffix != ".wav":
        with av.open(str(tmp_path / "in.wav")) as source, av.open(str(path), "w") as target:
            name = {".flac": "flac", ".mp3": "libmp3lame", ".opus": "libopus"}.get(suffix, "aac")
            stream = target.add_stream(name, rate=rate)
            for frame in [*source.decode(audio=0), None]:
                target.mux(stream.encode(frame))
    else:
        path = tmp_path / "in.wav"
    whole = read_audio(path, sample_rate=rate, num_samples=12 * rate)
    for start_s in (1.0, 4.0, 9.5):
        part = read_audio(path, sample_rate=rate, num_samples=2 * rate, start_s=start_s)
        first = round(start_s * rate)
        np.testing.assert_allclose(part, whole[first : first + 2 * rate], atol=1e-4)
