"""`specmaskfoley generate`: all kinds of videos, and arguments that mean no good."""

from __future__ import annotations

import json
import os
import re
import struct
import time
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers.odd_media import AAC, H264, boxes, corpus, encode
from helpers.untrained import hush, write_noise, write_untrained
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from specmaskfoley.clips.world import LABELS
from specmaskfoley.commands.generate import name_targets, parse_span
from specmaskfoley.commands.main import app
from specmaskfoley.media.frames import read_frames
from specmaskfoley.media.probe import probe


def generate(model: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["generate", "--model", str(model), *map(str, arguments)])


def check_result(source: Path, out: Path, name: str) -> None:
    """The sound and the video are as long as the source, and the picture is the same."""
    made = next(path for path in (out / f"{name}{suffix}" for suffix in (".mp4", ".mov", ".mkv")) if path.exists())
    before, after = probe(source), probe(made)
    frame_s = 1 / before.fps if before.fps else 0.04
    assert after.duration_s == pytest.approx(before.duration_s, abs=frame_s + 1e-3), source.name
    assert after.audio_end_s == pytest.approx(before.duration_s, abs=max(frame_s, 0.05)), source.name
    wave, rate = soundfile.read(out / f"{name}.flac")
    assert len(wave) / rate == pytest.approx(before.duration_s, abs=frame_s + 1e-3), source.name
    if source.name.startswith("negative_times"):  # its first frames have no times: players guess
        return
    times = np.linspace(0, before.duration_s, 3) + frame_s / 2  # containers round times
    np.testing.assert_array_equal(
        read_frames(source, times=times, size=32), read_frames(made, times=times, size=32), err_msg=source.name
    )
    assert json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["video"]["name"] == source.name


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pipes, links and names of POSIX")
def test_a_zoo_of_files_gives_sounds_of_the_same_length_or_one_line(model: Path, tmp_path: Path):
    cases = corpus(tmp_path / "work")
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    zoo.mkdir()
    videos = []
    for case in cases:
        path = zoo / case.name.replace(".", f"-{len(videos)}.", 1)
        case.make(path)
        if path.exists() and not path.is_dir():
            videos.append(path)
    result = generate(model, *videos, "--out", out, "--steps", "2")
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    errors = {line.split(": ")[1] for line in result.stderr.splitlines() if line.startswith("error: ")}
    assert len(result.stderr.splitlines()) == len(errors)
    assert len(errors) < len(videos) / 2
    alone = {line.split(": ")[0] for line in result.stdout.splitlines() if "there will be the sound alone" in line}
    assert "wmv2" in "".join(alone)
    for path in videos:
        if path.name in errors:
            assert not list(out.glob(f"{path.stem}.*")), path
        elif path.name in alone:
            assert {file.suffix for file in out.glob(f"{path.stem}.*")} == {".flac", ".json"}
        else:
            check_result(path, out, path.stem)
    assert not list(out.glob(".tmp*"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("portrait.mp4", ("-vf", "transpose=1", *H264, *AAC)),
        ("fps_60.mp4", ("-r", "60", *H264, *AAC)),
        ("half_second.mp4", (*H264, *AAC, "-t", "0.5")),
        (
            "hdr.mp4",
            ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-x265-params",
             "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,400", *AAC),
        ),
        ("vp9.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus")),
    ],
)  # fmt: skip
def test_variants(model: Path, tmp_path: Path, name: str, options: tuple[str, ...]):
    encode(tmp_path / name, *options)
    result = generate(model, tmp_path / name, "--out", tmp_path / "out", "--keep-original-audio", "mix")
    assert result.exit_code == 0, result.output
    check_result(tmp_path / name, tmp_path / "out", Path(name).stem)
    if name == "hdr.mp4":
        assert colours(tmp_path / "out" / name) == colours(tmp_path / name) == (9, 16, 9)


def colours(video: Path) -> tuple[int, int, int]:
    """Primaries, transfer and matrix, as their standard (H.273) numbers them."""
    with av.open(str(video)) as container:
        context = container.streams.video[0].codec_context
        return int(context.color_primaries), int(context.color_trc), int(context.colorspace)


@pytest.mark.slow
def test_three_minutes(model: Path, tmp_path: Path):
    source = write_noise(tmp_path / "long.mp4", 180, fps=4)
    result = generate(model, source, "--out", tmp_path / "out", "--steps", "1")
    assert result.exit_code == 0, result.output
    check_result(source, tmp_path / "out", "long")


@pytest.mark.official
def test_real_clips(model: Path, clips: Path, tmp_path: Path):
    result = generate(model, clips, "--out", tmp_path, "--text", "playing drum")
    assert result.exit_code == 0, result.output
    for clip in clips.glob("*.mp4"):
        check_result(clip, tmp_path, clip.stem)


def test_candidates_and_their_scores_are_kept(model: Path, video: Path, tmp_path: Path):
    result = generate(model, video, "--out", tmp_path, "--candidates", "3", "--seed", "7", "--format", "wav")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("*.wav")} == {"clip.wav", "clip.2.wav", "clip.3.wav"}
    best = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))
    assert best["candidates"][0]["seed"] == best["history"][0]["sampling"]["seed"]
    assert sorted(one["seed"] for one in best["candidates"]) == [7, 8, 9]
    lines = result.stdout.splitlines()
    assert lines[1] == "the judges have only learnt from drawn scenes: of other videos their numbers say little"
    verdicts = [number for number, line in enumerate(lines) if re.match(r"  \d\. seed \d: ", line)]
    assert len(verdicts) == 3
    for number in verdicts:
        assert re.search(r"about chance \(.* s; 0 to .* s at random is .* s\), meaning: fits ", lines[number])
    assert lines[verdicts[0] + 1] == "     no take is more in time than chance, and so none is the best"
    assert "fits best" not in result.stdout, "a network that has learnt nothing"


def test_a_sound_that_is_nearly_silent_is_called_so(tmp_path: Path):
    model = hush(write_untrained(tmp_path / "model"))
    videos = [write_noise(tmp_path / f"{name}.mp4", 1.0) for name in "ab"]
    result = generate(model, *videos, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = re.findall(r"^  nearly silent: the loudest moment is at -\d+ dBFS, .*$", result.stdout, re.MULTILINE)
    assert len(said) == 2
    assert result.stdout.splitlines()[-1] == "2 of 2 sounds are nearly silent"
    record = json.loads((tmp_path / "out" / "a.json").read_text(encoding="utf-8"))
    assert record["level"]["nearly_silent"] is True
    assert f"{record['level']['loudest_db']:.0f} dBFS" in said[0]


def test_a_sound_that_can_be_heard_has_its_level(model: Path, video: Path, tmp_path: Path):
    result = generate(model, video, "--out", tmp_path)
    assert "nearly silent" not in result.stdout
    assert re.search(r"^  level: the loudest moment is at -\d+ dBFS, ", result.stdout, re.MULTILINE)
    assert json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))["level"]["nearly_silent"] is False


def test_the_model_says_what_it_is_and_what_it_knows(model: Path, tmp_path: Path):
    video = write_noise(tmp_path / "in" / "clip.mp4", 1.0)
    result = generate(model, video, "--out", tmp_path, "--text", "dog barking")
    first, second = result.stdout.splitlines()[:2]
    assert first == f"model: SpecMaskFoley mini; trained on 12 sounds: {', '.join(sorted(LABELS))}"
    remark = '"dog barking" is not among the 12 sounds that this model was trained on, and is like none of them'
    assert second == f"--text: {remark}"
    record = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))
    assert record["knowledge"] == {
        "model": "SpecMaskFoley mini", "sounds": sorted(LABELS), "any_text": False, "remark": remark,
    }  # fmt: skip
    known = generate(model, video, "--out", tmp_path, "--text", "hammering nail")
    assert "not among" not in known.stdout


def test_edits(model: Path, video: Path, tmp_path: Path):
    result = generate(model, video, "--out", tmp_path, "--only", "1-2", "--only", "3.5-4")
    assert result.exit_code == 0, result.output
    step = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))["history"][-1]
    assert step["only"] == [[1.0, 2.0], [3.5, 4.0]]
    soundfile.write(tmp_path / "short.wav", np.full(16000, 0.1), 16000)
    result = generate(model, video, "--out", tmp_path / "more", "--from-audio", tmp_path / "short.wav")
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "more" / "clip.flac").duration == pytest.approx(6.0)
    result = generate(model, video, "--out", tmp_path / "band", "--extend-band", "3000")
    assert result.exit_code == 0, result.output


def test_parts_what_is_not_heard_and_a_sound_without_a_video(model: Path, video: Path, tmp_path: Path):
    words = ["--text", "0-2: rain; 2-4.5: door", "--text", "5-6: church bell", "--negative", "music"]
    result = generate(model, video, "--out", tmp_path, *words, "--negative-scale", "2", "--steps", "2")
    assert result.exit_code == 0, result.output
    (step,) = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))["history"]
    assert (step["text"], step["negative"]) == ([[0, 2, "rain"], [2, 4.5, "door"], [5, 6, "church bell"]], "music")
    assert step["sampling"]["negative_scale"] == 2
    alone = ["--duration", "1.5", "--steps", "2", "--candidates", "2", "--format", "wav"]
    result = generate(model, "--out", tmp_path, "--text", "Türen, 3 mal!", *alone)
    assert result.exit_code == 0, result.output
    assert [path.name for path in sorted(tmp_path.glob("T*"))] == [
        "Türen-3-mal.2.json", "Türen-3-mal.2.wav", "Türen-3-mal.json", "Türen-3-mal.wav",
    ]  # fmt: skip
    assert soundfile.info(tmp_path / "Türen-3-mal.wav").duration == pytest.approx(1.5, abs=1e-3)
    assert "clip.json is there" in generate(model, "--out", tmp_path, "--like", tmp_path / "clip.flac", *alone).stderr
    result = generate(model, "--out", tmp_path / "more", "--like", tmp_path / "clip.flac", *alone)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "more" / "clip.2.wav").exists()


def test_a_sound_that_nothing_can_be_like(model: Path, video: Path, tmp_path: Path):
    wave = np.zeros(16000)
    soundfile.write(tmp_path / "silent.wav", wave, 16000)
    soundfile.write(tmp_path / "odd.wav", np.where(np.arange(16000) == 99, np.nan, 0.3), 16000, "FLOAT")
    for name, said in (("silent", "is silent"), ("odd", "holds samples that are no numbers")):
        result = generate(model, video, "--like", tmp_path / f"{name}.wav", "--out", tmp_path / "out")
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: clip.mp4: ")
        assert line.endswith(f"{name}.wav: {said}, and so nothing can be made like it")
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a video; or, for a sound without one, give --duration SECONDS and --text or --like"),
        (["--duration", "3"], "name a video; or, for a sound without one"),
        (["--text", "rain"], "name a video; or, for a sound without one"),
        (["--text", "rain", "--duration", "0"], "--duration 0: expected seconds up to 14400"),
        (["--text", "rain", "--duration", "3", "--only", "0-1"], "need a video"),
        (["--text", "3-4: rain", "--duration", "2"], "text 3-4: the sound ends at 2.00 s"),
        (["clip.mp4", "--duration", "3"], "--duration 3 is for sounds without video"),
        (["clip.mp4", "--text", "rain", "--like", "clip.mp4"], "a prompt is words or a sound"),
        (["clip.mp4", "--text", "0-1: rain", "--text", "door"], "--text 'door': one of several is for a part"),
        (["clip.mp4", "--text", "0-2: rain; 1-3: door"], "text 0-2: the next part begins before its end"),
        (["clip.mp4", "--like", "text.txt"], "--like text.txt: cannot be decoded"),
        (["clip.mp4", "--negative-scale", "inf"], "--negative-scale inf is not finite"),
        (["gone.mp4"], "gone.mp4: no such file or folder"),
        (["."], "no video in this folder"),
        (["clip.mp4", "--only", "5-2"], "--only 5-2: the end must come after the beginning"),
        (["clip.mp4", "--only", "a;rm -rf"], "expected seconds from and to"),
        (["clip.mp4", "--cfg-scale", "inf"], "--cfg-scale inf"),
        (["clip.mp4", "--from-audio", "text.txt"], "--from-audio text.txt: cannot be decoded"),
        (["clip.mp4", "--only", "1-2", "--extend-band", "3000"], "leave out --only"),
        (["clip.mp4", "clip.mp4", "--from-audio", "clip.mp4"], "found 2 videos"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(model: Path, tmp_path: Path, monkeypatch, arguments: list[str], message: str):
    monkeypatch.chdir(tmp_path)
    if "clip.mp4" in arguments:
        write_noise(tmp_path / "clip.mp4", 1.0)
    (tmp_path / "text.txt").write_text("no sound")
    result = generate(model, *arguments, "--out", "out")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_a_folder_without_a_model_says_so(video: Path, tmp_path: Path):
    result = generate(tmp_path, video, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


HOSTILE_NAMES = (
    "; touch pwned ;.mp4", "$(touch pwned).mp4", "`touch pwned`.mp4", "| touch pwned.mp4", "&& touch pwned.mp4",
    "> pwned.mp4", "--out=pwned.mp4", "-y.mp4", "a\nb.mp4", "a\x1b[31mred.mp4", "..mp4", "...mp4", " .mp4",
    "a b'c\"d.mp4", "file:clip.mp4", "http:clip.mp4", "concat:clip.mp4", "pipe:0.mp4", "%s%n%x.mp4", "{x}.mp4", "*.mp4",
    "?.mp4", "C:\\clip.mp4", "..\\..\\clip.mp4", "~.mp4", "~root.mp4", "NUL.mp4", "日本語.mp4", "\u202egpj.mp4",
    "a" * 200 + ".mp4", "#EXTM3U.mp4", "lavfi:color.mp4", "subfile,,start,0,end,9,,.mp4", "crypto:x.mp4",
    "data:text.mp4", "x" * 251 + ".mp4", ".mp4", "clip.mp4;type=video",
)  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_hostile_names_are_only_names(model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_noise(tmp_path / "source.mp4", 0.4)
    inbox, out = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    for name in HOSTILE_NAMES:
        (inbox / name).write_bytes(source.read_bytes())
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    result = generate(model, *(inbox / name for name in HOSTILE_NAMES), "--out", out, "--steps", "1")
    assert result.exit_code == 0, result.output
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} - {out} == before
    assert len(list(out.glob("*.flac"))) == len(HOSTILE_NAMES)
    assert all(path.parent == out for path in out.rglob("*"))
    assert "\x1b" not in result.output


def hostile_files(folder: Path, whole: Path) -> dict[str, Path]:
    """Files that pose as videos."""
    data = whole.read_bytes()
    files = {}

    def write(name: str, content: bytes) -> Path:
        files[name] = folder / name
        files[name].write_bytes(content)
        return files[name]

    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("zeros", bytes(50_000_000))
    write("bomb.mp4", (folder / "bomb.zip").read_bytes())
    write("zip_polyglot.mp4", data + (folder / "bomb.zip").read_bytes())
    write("script_polyglot.mp4", b"#!/bin/sh\ntouch pwned\n" + data)
    write("script.mp4", b"#!/bin/sh\ntouch pwned\n")
    write("html.mp4", b"<html><script>alert(1)</script></html>")
    write("svg.mp4", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>')
    write("playlist.mp4", f"#EXTM3U\n#EXTINF:3,\n{whole}\n#EXT-X-ENDLIST\n".encode())
    write("remote.mp4", b"#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    write("concat.mp4", f"ffconcat version 1.0\nfile {whole}\n".encode())
    write("session.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n")
    changed = bytearray(data)
    for kind, start, _ in boxes(data):
        if kind in ("mvhd", "mdhd", "tkhd"):
            struct.pack_into(">I", changed, start + (20 if kind == "tkhd" else 16), 0xFFFFFFF0)
    write("ten_hours_by_header.mp4", bytes(changed))
    for kind, start, end in boxes(data):
        if kind in ("stsz", "stts", "stsc", "stco"):
            changed = bytearray(data)
            changed[start + 4 : end] = b"\xff" * (end - start - 4)
            write(f"endless_{kind}_{start}.mp4", bytes(changed))
    return files


def test_hostile_files_execute_nothing_and_end(model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inbox, out = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    files = hostile_files(inbox, write_noise(tmp_path / "whole.mp4", 2.0))
    apart = files["ten_hours_apart.mp4"] = inbox / "ten_hours_apart.mp4"
    encode(apart, "-vf", "setpts=N*36000/TB", "-fps_mode", "vfr", "-frames:v", "2", *H264, "-an")
    begin = time.monotonic()
    result = generate(model, *files.values(), "--out", out, "--steps", "1")
    assert time.monotonic() - begin < 120
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert not list(tmp_path.rglob("pwned"))
    lines = result.stderr.splitlines()
    assert len(lines) + len(list(out.glob("*.flac"))) == len(files)
    assert any(line.startswith("error: ten_hours_apart.mp4: is 36000") for line in lines)
    for path in out.glob("*.flac"):
        assert soundfile.info(path).duration < 3, path


@given(st.text(max_size=12))
def test_spans_are_read_or_refused(text: str):
    try:
        begin, end = parse_span(text)
    except ValueError:
        return
    assert 0 <= begin < end


@given(st.floats(0, 1e4).map(lambda x: round(x, 3)), st.floats(0.001, 1e3).map(lambda x: round(x, 3)))
def test_spans_come_back(begin: float, length: float):
    end = round(begin + length, 3)
    if end > begin:
        assert parse_span(f"{begin:.3f} - {end:.3f}") == (begin, end)


@given(st.lists(st.sampled_from(["a.mp4", "a.webm", "a-2.mp4", "a.2.mp4", "a.3.mkv", "b.mp4"])), st.integers(1, 4))
def test_no_two_videos_share_a_name(names: list[str], candidates: int):
    targets = name_targets([Path(name) for name in names], Path("out"), candidates)
    files = [
        target.name + ending
        for target in targets
        for ending in ("", *(f".{number}" for number in range(2, candidates + 1)))
    ]
    assert len(files) == len(set(files))


def test_seconds_after_the_end_are_named(model: Path, tmp_path: Path):
    video = write_noise(tmp_path / "clip.mp4", 2.0)
    result = generate(model, video, "--out", tmp_path / "out", "--only", "0.2-0.4", "--only", "1-9")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "clip.mp4: --only 1-9: made up to 2.00 s, where the video ends"
    assert "--only 0.2-0.4" not in result.stdout
    result = generate(model, video, "--out", tmp_path / "out", "--only", "2-3")
    assert (result.exit_code, result.stderr) == (1, "error: clip.mp4: --only 2-3: the video ends at 2.00 s\n")


def test_a_picture_that_cannot_be_copied_leaves_the_sound_unless_it_may_be_encoded(model: Path, tmp_path: Path):
    encode(tmp_path / "old.wmv", "-c:v", "wmv2", "-c:a", "wmav2")
    done = generate(model, tmp_path / "old.wmv", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "old.wmv: its picture cannot be copied into .mp4, .mov, .mkv: there will be the sound alone" in done.output
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["old.flac", "old.json"]
    done = generate(model, tmp_path / "old.wmv", "--out", tmp_path / "b", "--picture", "encode")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["old.flac", "old.json", "old.mp4"]
