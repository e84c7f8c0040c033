"""`specmaskfoley serve`, driven by HTTP alone, as another program would."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import requests
import soundfile
from helpers.page_server import Server
from helpers.untrained import write_noise
from helpers.web_api import Api
from typer.testing import CliRunner

from specmaskfoley.commands.main import app

PASSWORD = "pässword $(x)"
SHORT = {"steps": 2}
LONG = {"steps": 64, "candidates": 4}


@pytest.fixture(scope="module")
def api(served: Server) -> Api:
    return Api(served.url)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_noise(tmp_path_factory.mktemp("clip") / "clip.mp4", 3.0).read_bytes()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_noise(tmp_path_factory.mktemp("long") / "clip.mp4", 25.0, fps=5).read_bytes()


def heard(content: bytes) -> tuple[np.ndarray, int]:
    waveform, rate = soundfile.read(io.BytesIO(content))
    return waveform, rate


def wav(waveform: np.ndarray, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV")
    return file.getvalue()


def noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(1).standard_normal(round(16000 * seconds))


def test_a_video_becomes_takes_that_can_be_fetched(api: Api, clip: bytes) -> None:
    job = api.made(clip, text="hammering nail", negative="speech", candidates=2, seed=7, **SHORT)
    assert sorted(take["seed"] for take in job["takes"]) == [7, 8]
    assert job["takes"][0]["scores"]["overall"] >= job["takes"][1]["scores"]["overall"]
    assert "overall" in job["takes"][0]["verdict"]
    assert job["doubt"].startswith("the judges have only learnt from")
    for number, take in enumerate(job["takes"], start=1):
        assert take["level"].startswith(("level:", "nearly silent:"))
        assert take["sound"] == f"{job['url']}/takes/{number}.flac"
        waveform, rate = heard(api.fetch(take["sound"]))
        assert len(waveform) / rate == pytest.approx(take["duration_s"]) == pytest.approx(3.0)
        with av.open(io.BytesIO(api.fetch(take["video"]))) as film:
            assert film.streams.video[0].frames == 75
            assert len(film.streams.audio) == 1
        record = json.loads(api.fetch(take["record"]))
        assert (record["history"][0]["text"], record["history"][0]["negative"]) == ("hammering nail", "speech")
        assert record["history"][0]["sampling"] | {"seed": take["seed"], "steps": 2} == record["history"][0]["sampling"]
        assert api.fetch(take["picture"]).startswith(b"\x89PNG")
    part = api.get(job["takes"][0]["video"], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")


def test_the_record_makes_the_same_sound_again_to_the_bit(api: Api, model: Path, clip: bytes, tmp_path: Path) -> None:
    (take,) = api.made(clip, text=["0-1: hammering nail", "1-3: playing piano"], negative="speech", **SHORT)["takes"]
    (tmp_path / "record.json").write_bytes(api.fetch(take["record"]))
    (tmp_path / "film.mp4").write_bytes(clip)
    record, film, out = (str(tmp_path / name) for name in ("record.json", "film.mp4", "out"))
    again = CliRunner().invoke(app, ["generate", film, "--record", record, "--out", out, "--model", str(model)])
    assert again.exit_code == 0, again.output
    made, _ = heard((tmp_path / "out" / "film.flac").read_bytes())
    np.testing.assert_array_equal(made, heard(api.fetch(take["sound"]))[0])


def test_a_sound_without_video(api: Api) -> None:
    (take,) = api.made(duration_s=2.5, text="playing piano", **SHORT)["takes"]
    waveform, rate = heard(api.fetch(take["sound"]))
    assert len(waveform) / rate == pytest.approx(2.5, abs=0.001)
    assert take["video"] is None
    assert json.loads(api.fetch(take["record"]))["video"] is None


def test_a_sound_to_be_like_takes_the_place_of_words(api: Api, clip: bytes) -> None:
    like = wav(noise(3.0))
    takes = [api.made(clip, like=like, **SHORT)["takes"][0], api.made(clip, **SHORT)["takes"][0]]
    record = json.loads(api.fetch(takes[0]["record"]))
    assert record["history"][0]["like"]["sha256"] is not None
    one, other = (heard(api.fetch(take["sound"]))[0] for take in takes)
    assert not np.array_equal(one, other)


def test_parts_of_the_own_sound_are_made_anew_and_the_rest_is_kept(api: Api, clip: bytes) -> None:
    (take,) = api.made(clip, only=["0.5-1", "2-2.5"], **SHORT)["takes"]
    (whole,) = api.made(clip, only="0-3", **SHORT)["takes"]
    (edited, rate), (other, _) = (heard(api.fetch(one["sound"])) for one in (take, whole))
    own = own_sound(clip)[: len(edited)]
    kept = np.ones(len(edited), bool)
    for begin, end in ((0.5, 1.0), (2.0, 2.5)):
        kept[round(begin * rate) : round(end * rate)] = False
    np.testing.assert_allclose(edited[kept], own[kept], atol=1e-6)  # 24 bits
    assert np.abs(edited[~kept] - own[~kept]).max() > 1e-3
    assert np.abs(other[kept] - own[kept]).max() > 1e-3


def test_a_given_sound_is_edited_in_place_of_the_own(api: Api, clip: bytes) -> None:
    given = noise(3.0)
    given[16000:32000] = 0.0
    (take,) = api.made(clip, from_audio=wav(given), **SHORT)["takes"]
    edited, rate = heard(api.fetch(take["sound"]))
    assert rate == 16000
    given = heard(wav(given))[0]
    np.testing.assert_array_equal(edited[:16000], given[:16000])
    np.testing.assert_array_equal(edited[32000:], given[32000:])
    assert np.abs(edited[16000:32000]).max() > 0


def own_sound(clip: bytes) -> np.ndarray:
    with av.open(io.BytesIO(clip)) as film:
        return np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])


def test_what_was_made_of_one_seed_does_not_depend_on_the_form(api: Api, clip: bytes) -> None:
    sounds = [
        heard(api.fetch(api.made(clip, text="hammering nail", **given)["takes"][0]["sound"]))[0]
        for given in ({**SHORT}, {**SHORT, "seed": 0, "candidates": 1, "keep_original_audio": "mix"})
    ]
    np.testing.assert_array_equal(sounds[0], sounds[1])


def test_the_queue_tells_places_and_a_cancelled_job_makes_room(served: Server, api: Api, long_clip: bytes) -> None:
    before = served.session_files()
    first, second = (api.post(long_clip, **LONG) for _ in range(2))
    third = api.post(duration_s=1, text="playing piano", **SHORT)
    seen = api.follow(first, lambda told: told["state"] == "running" and told["share"] > 0)
    assert [told["share"] for told in seen] == sorted(told["share"] for told in seen)
    assert seen[-1]["message"]
    assert (api.job(second)["state"], api.job(second)["before"]) == ("waiting", 1)
    assert (api.job(third)["state"], api.job(third)["before"]) == ("waiting", 2)
    assert api.get(f"{third['url']}/takes/1.flac").status_code == 409
    for job in (second, first):
        assert api.delete(job["url"]).status_code == 204
        assert api.get(job["url"]).status_code == 404
        assert api.delete(job["url"]).status_code == 404
    assert api.ended(third)["state"] == "done"
    assert api.delete(third["url"]).status_code == 204
    assert served.session_files() == before


def test_what_is_deleted_is_gone_from_the_disk(served: Server, api: Api, clip: bytes) -> None:
    before = set(served.session_files())
    job = api.made(clip, **SHORT)
    assert set(served.session_files()) > before
    assert api.delete(job["url"]).status_code == 204
    assert set(served.session_files()) == before
    assert api.get(job["takes"][0]["sound"]).status_code == 404


def test_only_so_many_jobs_wait(api: Api, long_clip: bytes) -> None:
    most = api.get("/model").json()["limits"]["jobs"]
    jobs = [api.post(long_clip, **LONG)]
    for _ in range(most - 1):
        jobs.append(api.post(duration_s=1, text="playing piano", **SHORT))
    refused = api.send([("duration_s", "1"), ("text", "playing piano")])
    assert (refused.status_code, "in line already" in refused.json()["detail"]) == (429, True)
    for job in jobs:
        assert api.delete(job["url"]).status_code == 204
    assert api.made(duration_s=1, text="playing piano", **SHORT)


def test_what_the_model_is(api: Api) -> None:
    told = api.get("/model").json()
    assert told["name"] == "SpecMaskFoley mini"
    assert "hammering nail" in told["sounds"]
    assert told["limits"] | {"minutes": 0.5, "megabytes": 3.0, "candidates": 4} == told["limits"]
    assert told["defaults"]["steps"] == 3


def test_the_description_is_of_what_is_there_and_the_page_loads_nothing(api: Api) -> None:
    described = api.get("/openapi.json").json()
    assert set(described["paths"]) == {"/jobs", "/jobs/{job_id}", "/jobs/{job_id}/takes/{file}", "/model"}
    form = described["paths"]["/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    page = api.get("/")
    assert page.url.endswith("/docs")
    for name, field in form["properties"].items():
        assert f"<code>{name}</code>" in page.text
        assert field["description"]
    for outside in ("http://", "https://", "src=", "<link", "<script", "@import", "url("):
        assert outside not in page.text.replace("http://HOST", ""), outside
    assert "default-src 'self'" in page.headers["content-security-policy"]


WRONG: list[tuple[list[tuple[str, Any]], int, str]] = [
    ([], 422, "video is missing"),
    ([("text", "rain")], 422, "video is missing"),
    ([("duration_s", "2")], 422, "video is missing"),
    ([("duration_s", "2"), ("text", " ")], 422, "video is missing"),
    ([("duration_s", "9e9"), ("text", "rain")], 422, "The length may be 30 s at most."),
    ([("duration_s", "0"), ("text", "rain")], 422, "duration_s: "),
    ([("duration_s", "nan"), ("text", "rain")], 422, "duration_s: "),
    ([("duration_s", "2"), ("text", "rain"), ("like", ("a.wav", b"x"))], 422, "text and like: "),
    ([("duration_s", "2"), ("text", "rain"), ("only", "0-1")], 422, "only, from_audio and keep_original_audio need"),
    ([("video", ("a.mp4", b"x")), ("duration_s", "2")], 422, "duration_s is for sounds without video"),
    ([("video", ("a.mp4", b"x")), ("only", "3-2")], 422, "only: expected seconds"),
    ([("video", ("a.mp4", b"x")), ("only", "1-2-3")], 422, "only: "),
    ([("video", ("a.mp4", b"x")), ("text", "rain"), ("text", "0-1: wind")], 422, "text 'rain': one of several"),
    ([("video", "http://127.0.0.1/a.mp4")], 422, "video: expected a file"),
    ([("video", ("a.mp4", b"x")), ("video", ("b.mp4", b"x"))], 422, "video: expected a file"),
    ([("video", ("a.mp4", b"x")), ("colour", "red")], 422, "no such field; known: video, text"),
    ([("video", ("a.mp4", b"x")), ("seed", "1"), ("seed", "2")], 422, "seed: "),
    ([("video", ("a.mp4", b"x")), ("keep_original_audio", "louder")], 422, "keep_original_audio: "),
    ([(name, (name, b"x")) for name in ("video", "like", "from_audio", "more")], 400, "Too many files"),
]


@pytest.mark.parametrize(("fields", "status", "detail"), WRONG)
def test_a_mistake_is_a_sentence_that_names_the_field(
    api: Api, fields: list[tuple[str, Any]], status: int, detail: str
) -> None:
    answer = api.send(fields or [("text", "")])
    assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (status, detail)


@pytest.mark.slow  # every file is looked at in a process of its own
def test_a_file_that_is_no_video_fails_in_a_sentence(api: Api, clip: bytes) -> None:
    for fields, said in (
        ({"video": b"no video"}, "This file cannot be decoded"),
        ({"video": wav(noise(1.0))}, "There is only sound in this file."),
        ({"video": clip, "like": b"no sound"}, "The sound to be like cannot be decoded"),
        ({"video": clip, "from_audio": b"no sound"}, "The sound to be edited cannot be decoded"),
        ({"video": clip, "like": wav(noise(31.0))}, "The sound to be like is longer than 30 s"),
        ({"video": clip, "from_audio": wav(noise(31.0))}, "The sound to be edited is longer than 30 s"),
        ({"video": clip, "from_audio": wav(noise(3.0))}, "The sound has no silent hole and is as long as the video"),
        ({"video": clip, "only": "5-6"}, "Only=5-6: the video ends at 3.00 s"),
    ):
        job = api.ended(api.post(**fields))
        assert (job["state"], job["error"][: len(said)]) == ("failed", said)
        assert api.get(f"{job['url']}/takes/1.flac").status_code == 409


def test_errors_are_json(api: Api) -> None:
    for status, answer in (
        (404, api.get("/nowhere")),
        (404, api.get("/jobs/unknown")),
        (405, api.get("/jobs")),
        (405, api.delete("/model")),
        (415, api.session.post(f"{api.url}/jobs", json={"text": "rain"}, timeout=30)),
        (415, api.session.post(f"{api.url}/jobs", data={"text": "rain"}, timeout=30)),
    ):
        assert (answer.status_code, isinstance(answer.json()["detail"], str)) == (status, True)


@pytest.fixture(scope="module")
def locked(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(model, tmp_path_factory.mktemp("locked"), "--password", PASSWORD, command="serve")
    yield running
    running.stop()


def test_without_the_password_nothing_is_told_taken_or_done(locked: Server) -> None:
    said = PASSWORD.encode()
    doors = [
        (requests.Session(), 401),
        (basic(b"anyone", b"password"), 401),
        (basic(b"anyone", said + b" "), 401),
        (basic(said, b""), 401),
        (token(b"Bearer "), 401),
        (token(b"Bearer"), 401),
        (token(b"Basic " + said), 401),
        (token(b"Basic ====="), 401),
        (basic(b"anyone", said), 200),
        (basic(b"", said), 200),
        (token(b"Bearer " + said), 200),
    ]
    for session, status in doors:
        door = Api(locked.url, session)
        for path in ("/model", "/docs", "/openapi.json", "/"):
            assert door.get(path).status_code == status, (session.headers, path)
        sent = door.send([("duration_s", "1"), ("text", "rain"), ("steps", "1")])
        assert sent.status_code == (401 if status == 401 else 202)
        unknown = (door.get("/jobs/a").status_code, door.delete("/jobs/a").status_code)
        assert unknown == ((401, 401) if status == 401 else (404, 404))
        if status == 401:
            assert sent.headers["www-authenticate"].startswith("Basic")
            assert locked.session_files() == []
            assert door.get("/nowhere").status_code == 401
        else:
            assert door.ended(sent.json())["state"] == "done"
            assert door.delete(sent.json()["url"]).status_code == 204


def basic(user: bytes, password: bytes) -> requests.Session:
    session = requests.Session()
    session.auth = (user, password)  # type: ignore[assignment]
    return session


def token(said: bytes) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = said
    return session


@pytest.mark.slow  # servers of their own
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_the_middle_of_a_job_and_nothing_is_left(
    model: Path, long_clip: bytes, tmp_path: Path, number: int
) -> None:
    server = Server(model, tmp_path, command="serve")
    api = Api(server.url)
    jobs = [api.post(long_clip, **LONG) for _ in range(2)]
    api.follow(jobs[0], lambda told: told["state"] == "running" and told["share"] > 0)
    server.process.send_signal(number)
    assert server.process.wait(240) == 0, server.output
    assert list(server.temporary.iterdir()) == []
    assert "Traceback" not in server.output


def test_mistakes_in_the_arguments_are_a_line(model: Path) -> None:
    for options, said in (
        (["--password", " "], "error: --password is empty"),
        (["--host", "192.0.2.1"], "cannot listen"),
    ):
        refused = CliRunner().invoke(app, ["serve", "--model", str(model), *options])
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
