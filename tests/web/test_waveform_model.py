"""Page and HTTP interface with a model of the profile mini_1d, and with one whose prompts are words alone."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.shared import made_once
from helpers.untrained import shrink_waveform, write_noise, write_untrained
from helpers.worded import write_worded
from starlette.testclient import TestClient

from specmaskfoley.encoders.trained import PROMPT
from specmaskfoley.foley import Foley
from specmaskfoley.foley.prompts import Prompt
from specmaskfoley.web import api, cards
from specmaskfoley.web.forms import Order
from specmaskfoley.web.studio import MOST_STEPS, Choices, Limits, Result, Studio

WAIT_S = 240


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    model = made_once(tmp_path_factory, "model-1d", lambda folder: write_untrained(folder, shrink_waveform))
    yield from _opened(Foley.load(model), tmp_path_factory)


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """With T5."""
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROMPT.kinds, "t5", "helpers.worded:OneLayerT5")
        foley = Foley.load(made_once(tmp_path_factory, "model-worded", write_worded))
    yield from _opened(foley, tmp_path_factory)


def _opened(foley: Foley, factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(foley, factory.mktemp("studio") / "sessions", Limits())
    yield made
    made.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """An upload, which goes with the session."""
    return write_noise(tmp_path / "clip.mp4", 2.4)


def chosen(studio: Studio, steps: Any, **more: Any) -> Choices:
    return Choices.checked(studio.defaults, "rain falling", 0, 1, steps, 1.5, False, **more)


def controls(studio: Studio) -> dict[str, dict[str, Any]]:
    """The page's components by their element's name."""
    from specmaskfoley.web.page import build

    parts = [part["props"] for part in build(studio).config["components"]]
    return {props["elem_id"]: props for props in parts if props.get("elem_id")}


def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(1).standard_normal(16000), 16000, format="WAV")
    return file.getvalue()


# ---- steps of several codebooks ----


def test_the_slider_shows_the_first_codebook_s_steps(studio: Studio):
    slider = controls(studio)["steps"]
    assert (slider["value"], slider["maximum"]) == (3, MOST_STEPS)
    assert "first of several codebooks" in slider["info"]
    assert chosen(studio, 3).sampling.steps == (3, 2, 1, 1), "moving nothing takes the model's own"
    assert chosen(studio, 4).sampling.steps == 4


def test_a_model_with_more_steps_than_the_page_offers(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    sample = studio.foley.params.sample.model_copy(update={"steps": (MOST_STEPS + 1, 2)})
    monkeypatch.setattr(studio.foley, "params", studio.foley.params.model_copy(update={"sample": sample}))
    assert studio.defaults.first_steps == MOST_STEPS
    assert chosen(studio, MOST_STEPS).sampling.steps == MOST_STEPS


def test_a_part_is_made_anew_and_the_rest_stays(studio: Studio, clip: Path):
    session = studio.session("page")
    made: Result = studio.make(session, str(clip), chosen(studio, 3)).future.result(WAIT_S)
    assert "3 steps" in cards.takes(made)
    edit: Result = studio.remake(session, made.number, 1, 0.5, 1.0, chosen(studio, 2)).future.result(WAIT_S)
    before, after = (soundfile.read(one.takes[0].saved.audio)[0] for one in (made, edit))
    changed = np.flatnonzero(before != after) / 22050
    assert 0.5 <= changed[0] < 0.52
    assert 0.98 < changed[-1] < 1.0
    assert "2 steps" in cards.history(session.results, edit.number)
    studio.leave("page")


def ended(client: TestClient, url: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while (told := client.get(url).json())["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found: dict[str, Any] = told
    return found


def test_the_http_interface_takes_the_model_s_steps_or_the_first_codebook_s(studio: Studio, clip: Path):
    client = TestClient(api.build(studio))
    model = client.get("/model").json()
    assert model["defaults"]["steps"] == [3, 2, 1, 1]
    assert model["like"]
    for given, steps in (({}, [3, 2, 1, 1]), ({"steps": "4"}, 4)):
        with clip.open("rb") as video:
            job = client.post("/jobs", data={"text": "rain falling", **given}, files={"video": ("c.mp4", video)}).json()
        done = ended(client, job["url"])
        assert done["state"] == "done", done
        (take,) = done["takes"]
        assert client.get(take["record"]).json()["history"][0]["sampling"]["steps"] == steps
        sound, rate = soundfile.read(io.BytesIO(client.get(take["sound"]).content))
        assert len(sound) / rate == pytest.approx(2.4, abs=1e-3)
        assert client.delete(job["url"]).status_code == 204


# ---- words alone ----


def test_the_control_of_a_sound_to_be_like_is_there_only_where_it_is_of_use(studio: Studio, worded: Studio):
    heard, deaf = controls(studio), controls(worded)
    assert heard["like"]["visible"]
    assert not deaf["like"]["visible"]
    assert "that sound" in heard["duration"]["info"]
    assert "that sound" not in deaf["duration"]["info"]


def test_a_page_that_sends_one_all_the_same_is_refused_at_once(worded: Studio, clip: Path, tmp_path: Path):
    like = tmp_path / "like.wav"
    like.write_bytes(wav())
    session = worded.session("page")
    plain = chosen(worded, 3)
    choices = replace(plain, prompt=Prompt.of(like=like))
    for refused in (
        lambda: worded.make(session, str(clip), choices),
        lambda: worded.make(session, None, replace(choices, duration_s=1.0)),
        lambda: worded.remake(session, 1, 1, 0.0, 1.0, choices),
        lambda: worded.accept_sound(session, str(like)),
    ):
        with pytest.raises(ValueError, match="takes words alone, no sound to be like: say what is heard"):
            refused()
    assert session.job is None
    assert list(session.folder.iterdir()) == []
    made: Result = worded.make(session, str(clip), plain).future.result(WAIT_S)
    assert len(made.takes) == 1
    worded.leave("page")


def test_the_http_interface_refuses_one_and_writes_nothing(worded: Studio, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Order, "store", lambda *_: pytest.fail("it was written"))
    client = TestClient(api.build(worded))
    assert client.get("/model").json()["like"] is False
    before = sorted(worded.folder.rglob("*"))
    answer = client.post("/jobs", data={"duration_s": "1"}, files={"like": ("a.wav", wav())})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "This model takes words alone, no sound to be like: say what is heard."
    assert sorted(worded.folder.rglob("*")) == before
    assert len(worded.jobs) == 0
