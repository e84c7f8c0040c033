"""The Python API with tokens that are decided codebook by codebook: tiny and untrained, of a mel and of samples."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.shared import made_once
from helpers.untrained import shrink_waveform, write_untrained
from helpers.worded import write_worded

from specmaskfoley.encoders.trained import PROMPT
from specmaskfoley.foley import Foley, Take
from specmaskfoley.foley.export import export_model, model_card
from specmaskfoley.foley.inpainting import Request, Watch
from specmaskfoley.foley.prompts import Prompt
from specmaskfoley.foley.rendering import PEAK
from specmaskfoley.foley.windows import plan_windows
from specmaskfoley.settings import Params
from specmaskfoley.weights.lock import read_lock

STEP, WIDTH, OVERLAP, CODES = 512, 80, 26, 32  # samples, columns, columns (a third), of the tiny model
DURATION_S = 6.0


@pytest.fixture(scope="module")
def model_1d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "model-1d", lambda folder: write_untrained(folder, shrink_waveform))


@pytest.fixture(scope="module")
def foley(model_1d: Path) -> Foley:
    return Foley.load(model_1d)


@pytest.fixture(scope="module")
def take(foley: Foley, video: Path) -> Take:
    return foley.generate(video, text="playing drum", seed=3)[0]


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Foley:
    """A model with T5 and a codec of samples."""
    pytest.importorskip("transformers")
    model = made_once(tmp_path_factory, "model-worded", write_worded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROMPT.kinds, "t5", "helpers.worded:OneLayerT5")
        return Foley.load(model)


def columns_of(seconds: float, rate: int) -> int:
    return math.ceil(seconds * rate / STEP)


# ---- long sounds ----


def test_windows_of_samples_meet_without_a_seam(worded: Foley, video: Path):
    """Equal tokens give equal samples in two windows, but for the ends: the join is where these are far."""
    take = worded.generate(video, text="rain")[0]
    assert take.tokens.shape == (4, columns_of(DURATION_S, take.sample_rate))
    assert 0 <= take.tokens.min() <= take.tokens.max() < CODES
    assert len(take.seams_s) >= 4
    tokenizer = worded.generator.tokenizer
    whole = tokenizer.sound(tokenizer.frames(torch.from_numpy(take.tokens)[None]))[0].numpy()[: len(take.waveform)]
    assert np.abs(whole).max() > 0.1
    np.testing.assert_allclose(take.waveform, whole * min(1.0, PEAK / np.abs(whole).max()), atol=1e-5)


def test_windows_share_at_most_a_third(take: Take):
    joined, ends = (np.array(seams) * take.sample_rate / STEP for seams in (take.seams_s[::2], take.seams_s[1::2]))
    assert ends[0] == pytest.approx(WIDTH)
    assert ends[1] == pytest.approx(2 * WIDTH - OVERLAP)
    starts = np.array([*(ends[1:] - WIDTH), take.tokens.shape[1] - WIDTH])
    assert ((starts < joined) & (joined < ends)).all()


def test_planning_takes_time_in_proportion_to_the_length():
    begun = time.process_time()
    starts = plan_windows(np.ones(2_000_000, bool), 208, 52)
    assert time.process_time() - begun < 5  # a list that is searched from its start each time: minutes
    assert len(starts) == math.ceil((2_000_000 - 208) / 156) + 1


# ---- prompts, steps ----


def test_every_kind_of_prompt_steers_the_tokens(foley: Foley, video: Path, take: Take, tmp_path: Path):
    from specmaskfoley.media.writing import write_audio

    sound = 0.1 * np.random.default_rng(0).standard_normal(30000).astype(np.float32)
    write_audio(tmp_path / "like.wav", sound, 16000)
    made = [
        take,
        foley.generate(video, text="playing drum", seed=4)[0],
        foley.generate(video, seed=3)[0],
        foley.generate(video, text="church bell ringing", seed=3)[0],
        foley.generate(video, text="playing drum", negative="rain falling", seed=3)[0],
        foley.generate(video, like=tmp_path / "like.wav", seed=3)[0],
        foley.generate(video, text="playing drum", seed=3, scale=4.0)[0],
        foley.generate(video, text="playing drum", seed=3, steps=3)[0],
    ]
    assert len({one.tokens.tobytes() for one in made}) == len(made)
    again = foley.generate(video, text="playing drum", seed=3)[0]
    assert np.array_equal(again.waveform, take.waveform)


def test_parts_are_heard_by_their_own_columns(foley: Foley, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    draw = foley.generator.tokens
    monkeypatch.setattr(foley.generator, "tokens", lambda **given: seen.append(given) or draw(**given))
    take = foley.generate(duration_s=1.5, text=[(0.0, 0.5, "rain falling"), (1.0, 1.5, "playing drum")])[0]
    assert len(take.waveform) == round(1.5 * take.sample_rate)
    at, centres = seen[0]["at"], (np.arange(WIDTH) + 0.5) * STEP / take.sample_rate
    expected = np.where(centres < 0.5, 0, np.where((centres >= 1.0) & (centres < 1.5), 1, -1))
    assert at.shape == (1, 4, WIDTH)
    assert (at[0].numpy() == expected).all()


def test_steps_are_those_of_each_codebook_or_of_the_first(foley: Foley):
    told: list[Any] = []
    draw = foley.generator.sampler.sample

    def sample(*args: Any, **how: Any) -> Any:
        told.append(len(how["plan"]))
        return draw(*args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foley.generator.sampler, "sample", sample)
        for steps in ({}, {"steps": [4, 1, 1, 2]}, {"steps": 4}):
            take = foley.generate(duration_s=1.0, text="rain falling", **steps)[0]
    assert told == [3 + 2 + 1 + 1, 4 + 1 + 1 + 2, 4 + 2 + 2 + 2]
    assert take.record["history"][0]["sampling"]["steps"] == 4
    with pytest.raises(ValueError, match=r"steps=\[3, 2\] has 2 numbers, and the backbone decides.*4 levels"):
        foley.generate(duration_s=1.0, text="rain falling", steps=[3, 2])
    with pytest.raises(ValueError, match="expected an integer greater than 0, or a list of them"):
        foley.generate(duration_s=1.0, text="rain falling", steps=[3, 0, 1, 1])


def test_progress_and_stop_count_the_steps_of_all_codebooks(foley: Foley):
    shares: list[float] = []
    foley.generate(duration_s=1.0, text="rain falling", progress=lambda share, _: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len({share for share in shares if 0 < share < 0.6}) == 3 + 2 + 1 + 1 - 1


def test_candidates_are_judged(foley: Foley, video: Path, take: Take):
    takes = foley.generate(video, text="playing drum", seed=2, candidates=2)
    assert sorted(one.seed for one in takes) == [2, 3]
    assert np.array_equal(next(one for one in takes if one.seed == 3).waveform, take.waveform)
    assert all(one.scores is not None for one in takes)


# ---- edits ----


def test_only_the_seconds_in_question_change(foley: Foley, take: Take):
    rate = take.sample_rate
    edited = foley.regenerate(take, only=(2.0, 2.6), text="water dripping", seed=5)[0]
    changed = np.flatnonzero(edited.waveform != take.waveform)
    assert len(edited.waveform) == len(take.waveform)
    assert 2.0 * rate <= changed[0] < 2.01 * rate
    assert 2.59 * rate < changed[-1] < 2.6 * rate
    first, last = math.floor(2.0 * rate / STEP), math.ceil(2.6 * rate / STEP)
    outside = np.ones(take.tokens.shape[1], bool)
    outside[first:last] = False
    np.testing.assert_array_equal(edited.tokens[:, outside], take.tokens[:, outside])
    assert (edited.tokens[:, ~outside] != take.tokens[:, ~outside]).any(axis=1).all(), "a codebook was kept"


def test_a_given_sound_is_kept_to_the_bit_around_what_is_made(foley: Foley, video: Path):
    given = foley.listen(video)
    assert given.sample_rate != foley.params.audio.sample_rate
    edited = foley.regenerate(given, only=[(0.5, 0.9), (3.0, 3.4)], seed=5)[0]
    at = np.arange(len(given.waveform)) / given.sample_rate
    inside = ((at >= 0.5) & (at < 0.9)) | ((at >= 3.0) & (at < 3.4))
    assert np.array_equal(edited.waveform[~inside], given.waveform[~inside])
    assert (edited.waveform[inside] != given.waveform[inside]).mean() > 0.9


def test_the_tokens_around_come_from_the_sound(foley: Foley, take: Take, monkeypatch: pytest.MonkeyPatch):
    """What a model made is read back as what its codec makes of it, all codebooks of a column."""
    seen: list[Any] = []
    draw = foley.generator.tokens
    monkeypatch.setattr(foley.generator, "tokens", lambda **given: seen.append(given) or draw(**given))
    unread = replace(take, tokens=np.full_like(take.tokens, -1))
    foley.regenerate(unread, only=(0.6, 0.8), seed=5)
    tokens, known = (one[0].numpy() for one in seen[0]["known"])
    heard = torch.from_numpy(take.waveform[: WIDTH * STEP].copy())
    read = foley.generator.tokenizer.encode(heard[None])[0].numpy()
    assert (known == known[:1]).all()
    assert (~known[0]).sum() == math.ceil(0.8 * take.sample_rate / STEP) - math.floor(0.6 * take.sample_rate / STEP)
    np.testing.assert_array_equal(tokens[known], read[known])


def test_single_tokens_stay_whatever_lies_around_them(foley: Foley, video: Path):
    """Any pattern over codebooks and columns, also where a later codebook is known and an earlier one is not."""
    generator = np.random.default_rng(0)
    shape = (4, columns_of(4.0, foley.params.audio.sample_rate))
    tokens, known = generator.integers(0, CODES, shape), generator.random(shape) < 0.5
    sampling = foley.params.sampling.changed(temperature=3.5)
    request = Request(Prompt.of("rain falling"), [sampling, sampling.changed(seed=1)], Watch(None, None))
    drawn = foley._inpainter.draw(video, tokens, known, request)
    for one in drawn:
        np.testing.assert_array_equal(one.tokens[known], tokens[known])
        assert 0 <= one.tokens.min() <= one.tokens.max() < CODES
        assert one.settled.all()
    assert (drawn[0].tokens != drawn[1].tokens)[~known].mean() > 0.5


def test_codebooks_are_no_bands(foley: Foley, take: Take):
    with pytest.raises(ValueError, match=r"--extend-band 4000 \(hz\): the tokens of codec.kind=encodec are no bands"):
        foley.extend_band(take, 4000.0)


# ---- records, export ----


def test_what_a_record_says_is_made_again_to_the_bit(model_1d: Path, foley: Foley, video: Path, tmp_path: Path):
    text = [(0.0, 2.0, "rain falling"), (3.0, 5.0, "playing drum")]
    made = foley.generate(video, text=text, negative="engine running", seed=7, candidates=2)[0]
    edited = foley.regenerate(made, only=(1.0, 1.5), steps=[2, 1, 1, 1])[0]
    record = edited.save(tmp_path / "a").record
    again = Foley.load(model_1d, record=record).remake(video)
    assert np.array_equal(again.waveform, edited.waveform)
    assert np.array_equal(again.tokens, edited.tokens)
    steps = [one["sampling"]["steps"] for one in json.loads(record.read_text(encoding="utf-8"))["history"]]
    assert steps == [[3, 2, 1, 1], [2, 1, 1, 1]]


def test_an_exported_model_makes_the_same_sound(model_1d: Path, foley: Foley, take: Take, video: Path, tmp_path: Path):
    files = export_model(model_1d / "params.yaml", tmp_path / "model")
    assert Path("codec.safetensors") in files
    made = Foley.load(tmp_path / "model").generate(video, text="playing drum", seed=3)[0]
    assert np.array_equal(made.waveform, take.waveform)
    card = " ".join((tmp_path / "model" / "README.md").read_text(encoding="utf-8").split())
    assert "license: mit" in card
    assert "Transformer over spectrogram tokens" in card
    assert "22050 Hz, mono, sound up to 8 kHz, in windows of 1.86 s." in card


def test_the_card_of_the_public_model():
    params = Params.load(ROOT / "params.yaml", "magnet")
    lock = read_lock()
    official = {name: lock[name] for name in params.needed_weights()}
    lines = model_card(params, official, None, ())
    card = " ".join(lines.split())
    assert "license: other" in card
    assert "Transformer over waveform tokens" in card
    assert "16000 Hz, mono, sound up to 8 kHz, in windows of 9.96 s." in card
    for role, name in (("codec", "encodec_16khz"), ("backbone", "magnet_small")):
        assert f"`{role}.safetensors` holds the official weights {name}, and falls under their licence." in card
        assert f"- {name}: CC-BY-NC-4.0; NOT for commercial use;" in card
        assert lock[name].note
        assert lock[name].note in lines
    assert "`control.safetensors` began as a copy of blocks of magnet_small" in card
    assert "(t5_large): Apache-2.0;" in card


# ---- words alone ----


def test_words_of_several_tokens_steer_the_sound(worded: Foley, video: Path):
    how: list[dict[str, Any]] = [
        {}, {"text": "rain"}, {"text": "a dog barks"}, {"text": "rain", "negative": "a dog"},
        {"text": [(0.0, 1.0, "rain"), (2.0, 3.0, "a dog barks")]},
    ]  # fmt: skip
    made = [worded.generate(video, **one)[0] for one in how]
    assert len({one.tokens.tobytes() for one in made}) == len(made)
    assert worded.knowledge.any_text


@pytest.mark.parametrize("operation", ["generate", "regenerate"])
def test_a_sound_to_be_like_is_refused_before_anything_is_read(
    worded: Foley, video: Path, operation: str, monkeypatch: pytest.MonkeyPatch
):
    message = r"like=no/such.wav: this model's prompts are words alone \(encoders.prompt.kind\).*--text"
    given: Any = "no/such.mp4" if operation == "generate" else worded.listen(video)
    monkeypatch.setattr(worded.generator, "tokens", lambda **_: pytest.fail("it was drawn"))
    more = {} if operation == "generate" else {"only": (0.5, 1.0)}
    with pytest.raises(ValueError, match=message):
        getattr(worded, operation)(given, like="no/such.wav", **more)
