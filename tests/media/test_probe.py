"""What a file is said to hold, and files that are broken."""

import numpy as np
import pytest
from helpers.timed_media import RATE, clicks, make

from specmaskfoley.media.container import MediaError
from specmaskfoley.media.frames import read_frames
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import write_audio


def test_unusable_files_say_why(tmp_path):
    def state(path, of=probe):
        with pytest.raises(MediaError) as error:
            of(path)
        assert "\n" not in str(error.value)
        assert str(error.value)
        return error.value.state

    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    assert state(tmp_path / "text.mp4") in ("corrupt", "no_video")
    assert state(tmp_path / "empty.mp4") == "corrupt"
    assert state(tmp_path / "absent.mp4") == "missing"
    assert state(tmp_path) == "missing"
    silent = make(tmp_path / "mute.mp4")
    assert probe(silent).audio_rate is None
    assert state(silent, lambda path: read_audio(path, sample_rate=8000, num_samples=8)) == "no_audio"
    write_audio(tmp_path / "a.wav", np.zeros(RATE), RATE)
    (tmp_path / "a.wav").rename(tmp_path / "sound.mp4")
    assert state(tmp_path / "sound.mp4") == "no_video"
    assert state(tmp_path / "sound.mp4", lambda path: read_frames(path, times=np.zeros(1), size=8)) == "no_video"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("front", [False, True])
def test_cut_off_files_are_unreadable(tmp_path, suffix, front):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 3 * RATE))
    whole = make(
        tmp_path / f"a{suffix}",
        range(0, 3000, 40),
        audio=noise,
        options={"movflags": "+faststart"} if front and suffix == ".mp4" else None,
    )
    assert probe(whole).duration_s == pytest.approx(3.0, abs=0.05)
    data = whole.read_bytes()
    for share in (0.3, 0.6):
        whole.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(MediaError) as error:
            probe(whole)
        assert error.value.state == "corrupt"


def test_short_video_is_whole(tmp_path):
    path = make(tmp_path / "a.mp4", range(0, 200, 40), audio=clicks(0.2, [0.1]))
    info = probe(path)
    assert info.duration_s == pytest.approx(0.2, abs=0.01)
    assert info.audio_end_s == pytest.approx(0.2, abs=0.07)


def test_media_error_survives_a_process_pool():
    import pickle

    error = pickle.loads(pickle.dumps(MediaError("short", "0.2 s")))
    assert (error.state, str(error)) == ("short", "0.2 s")
