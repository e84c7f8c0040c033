"""The T5 encoder against transformers' own path, with weights by rule, two layers and a tokenizer made here.

Shape letters: n texts, L tokens, P prompt width.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.golden_rule import Golden
from helpers.official_files import exported, write_lock, write_official
from helpers.settings import changed
from helpers.small_t5 import SMALL, SmallT5, write_t5
from helpers.untrained import write_untrained
from torch import Tensor

from specmaskfoley import lineage
from specmaskfoley.backbone.data import load_token_clips, token_rows
from specmaskfoley.encoders.features import Prompts
from specmaskfoley.encoders.t5 import T5_LARGE, T5Encoder
from specmaskfoley.encoders.trained import PROMPT, load_encoder
from specmaskfoley.extraction.features import FeatureExtractor
from specmaskfoley.extraction.sounds import extract_sounds
from specmaskfoley.foley.prompts import Prompt, embed
from specmaskfoley.media.clips import MediaBatch
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ShardWriter, read_arrays
from specmaskfoley.weights.lock import read_lock
from specmaskfoley.weights.reading import read_weights

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

L, P = 7, SMALL["d_model"]
TEXTS = ["a dog barks", "rain", "Rain!", "dogs bark in the rain"]
CPU = torch.device("cpu")


def chosen(**more: int) -> Params:
    """The profile mini_1d with T5."""
    prompt = {"kind": "t5", "weights": "t5_large", "tokenizer": ["t5_large_tokenizer"], **more}
    of_profile = {"profiles.mini_1d.encoders.prompt": prompt, "profiles.mini_1d.encoders.train_prompt": None}
    return Params.from_mapping(changed({"profile": "mini_1d", **of_profile}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("weights") / "t5-large")


@pytest.fixture(scope="module")
def t5(folder: Path) -> T5Encoder:
    return load(folder)


def load(folder: Path, max_tokens: int = L) -> T5Encoder:
    encoder = SmallT5(folder, max_tokens)
    encoder.load_official(read_weights(folder / "model.safetensors"), "model.safetensors")
    return encoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def upstream(folder: Path) -> Any:
    """One text -> (tokens, P): what transformers itself makes of the folder."""
    import transformers

    config = transformers.T5Config(**SMALL)
    network, report = transformers.T5EncoderModel.from_pretrained(folder, config=config, output_loading_info=True)
    assert not report["missing_keys"]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    def hidden(text: str, most: int = 1000) -> Tensor:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=most)["input_ids"]
        assert tokens[0, -1] == 1
        with torch.inference_mode():
            return network.eval()(input_ids=tokens).last_hidden_state[0]

    return hidden


def test_embeddings_are_upstreams_of_each_text_alone_and_zeros_behind_them(t5, upstream):
    long = [text for text in TEXTS if len(upstream(text)) > L]
    assert long == TEXTS[3:]
    found = t5.embed_text(TEXTS)
    assert found.shape == (len(TEXTS), L, P)
    for text, row in zip(TEXTS, found, strict=True):
        expected = upstream(text, L)
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=1e-4)
        assert not row[len(expected) :].any()
        assert row[: len(expected)].abs().amax(1).min() > 0.1


def test_the_empty_text_gives_zeros_alone_and_a_batch_changes_nothing(t5):
    together = t5.embed_text(["", *TEXTS])
    assert not together[0].any()
    for text, row in zip(TEXTS, together[1:], strict=True):
        torch.testing.assert_close(t5.embed_text([text])[0], row, atol=1e-6, rtol=1e-5)


def test_a_longer_text_is_cut_before_its_end_token(folder, t5):
    short = load(folder, 3)
    said = [short.tokenizer.encode(text).ids for text in TEXTS]
    assert [len(ids) for ids in said] == [3] * len(TEXTS)
    assert all(1 in ids for ids in said)
    torch.testing.assert_close(short.embed_text(["a dog barks"]), short.embed_text(["a dog rain"]))
    assert not torch.equal(t5.embed_text(["a dog barks"]), t5.embed_text(["a dog rain"]))


def test_autocast_changes_nothing(t5):
    exact = t5.embed_text(TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(t5.embed_text(TEXTS), exact)
    assert exact.dtype == torch.float32


# ---- files ----


def test_other_weights_are_refused(folder):
    tensors = read_weights(folder / "model.safetensors")
    assert any(name.startswith("decoder.") for name in tensors)
    assert "encoder.embed_tokens.weight" not in tensors
    encoder = SmallT5(folder, L)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    absent = {name: value for name, value in tensors.items() if "relative_attention_bias" not in name}
    for wrong, message in (
        (absent, "1 missing"),
        (tensors | {"encoder.extra.weight": torch.zeros(2)}, r"1 unknown \(encoder.extra.weight\)"),
        (tensors | {"shared.weight": torch.zeros(3, P)}, r"shared.weight \[3, 16\] instead of \[48, 16\]"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.load_official(wrong, "x.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    encoder.load_official(tensors, "x.safetensors")
    assert torch.equal(encoder.encoder.embed_tokens.weight, tensors["shared.weight"])


def test_official_names_are_those_that_transformers_gives_the_whole_model():
    """Of t5-large as it is published; the network's own sizes are in T5_LARGE alone."""
    import transformers

    with torch.device("meta"):
        whole = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5_LARGE)).state_dict()
        own = transformers.T5EncoderModel(transformers.T5Config(**T5_LARGE))
    names = {name for name in own.state_dict() if name not in T5Encoder.optional}
    assert names == {name for name in whole if name.startswith(("shared.", "encoder.")) and name in names}
    assert all(own.state_dict()[name].shape == whole[name].shape for name in names)
    assert sum(value.numel() for value in own.parameters()) == 334_939_648


def test_a_tokenizer_that_is_none_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file, which T5 needs .* weights fetch"):
        SmallT5(tmp_path, L)
    file = tmp_path / "tokenizer.json"
    file.write_text("<html>sign in</html>")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not readable as a tokenizer .* delete it"):
        SmallT5(tmp_path, L)
    with pytest.raises(ValueError, match=r"tokens, and \[1\] for an empty text; expected at most 5, .* not T5's"):
        T5Encoder(folder, L, {**SMALL, "vocab_size": 5})
    write_unended(file)
    with pytest.raises(ValueError, match=r"has 1 tokens, and \[\] for an empty text; .* not T5's tokenizer"):
        SmallT5(tmp_path, L)


def write_unended(file: Path) -> None:
    """A tokenizer that appends no `</s>`."""
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", 0.0)], unk_id=0, byte_fallback=False)).save(str(file))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_files_of_audiocraft_are_read_by_their_entries(dtype, golden: Golden, tmp_path):
    file, lock = tmp_path / "state_dict.bin", read_lock(ROOT / "weights.lock.yaml")
    exported("magnet_lm_tiny", dtype)(file, golden)
    for name in ("magnet_small", "encodec_16khz"):
        found = read_weights(file, entry=lock[name].entry, member=lock[name].member, allow=lock[name].allow)
        assert {key: list(value.shape) for key, value in found.items()} == golden.manifest("magnet_lm_tiny")
        assert {value.dtype for value in found.values()} == {dtype}


# ---- in the project ----


@pytest.fixture
def params(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A tiny model whose prompts come from that T5, and its other encoders, in the current folder."""
    write_untrained(tmp_path)
    found = Params.load(tmp_path / "params.yaml")
    prompt = chosen(max_tokens=L).encoders.prompt
    encoders = found.encoders.model_copy(update={"prompt": prompt, "train_prompt": None})
    weights = found.weights.model_copy(update={"folder": str(folder.parent)})
    write_lock(tmp_path / "weights.lock.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROMPT.kinds, "t5", "helpers.small_t5:SmallT5")
    return found.model_copy(update={"encoders": encoders, "weights": weights})


def test_settings():
    found = chosen(max_tokens=L)
    assert (found.encoders.prompt.width, found.encoders.prompt.shape) == (1024, (L, 1024))
    assert not found.encoders.prompt.hears
    assert found.needed_weights() == ("t5_large", "t5_large_tokenizer")
    assert chosen().encoders.prompt.shape == (32, 1024)
    mini = Params.load(ROOT / "params.yaml").encoders.prompt
    assert (mini.shape, mini.hears) == ((mini.width,), True)
    clap = Params.load(ROOT / "params.yaml", "vggsound").encoders.prompt
    assert (clap.shape, clap.hears) == ((512,), True)


def test_features_have_texts_alone(params, t5):
    made = FeatureExtractor(params, CPU)
    assert made.sounds == ()
    frames = {view: np.zeros((2, view.frames, view.size, view.size, 3), np.uint8) for view in made.views}
    found = made.encode(MediaBatch(slice(0, 2), frames, {}), ["rain", ""])
    assert set(found) == {"sync", "semantic", "semantic_mean", "text_prompt"}
    assert (found["text_prompt"].shape, found["text_prompt"].dtype) == ((2, L, P), np.float16)
    np.testing.assert_array_equal(found["text_prompt"], t5.embed_text(["rain", ""]).half().numpy())


def test_training_reads_the_texts_where_there_are_no_audio_prompts(params):
    texts = np.random.default_rng(0).normal(size=(3, *params.encoders.prompt.shape)).astype(np.float16)
    tokens = np.arange(3 * params.grid.rows * params.grid.columns).reshape(3, params.grid.rows, params.grid.columns)
    for path, name, array in (
        (params.paths.tokens, "tokens", tokens.astype(np.int16)),
        (params.paths.features, "text_prompt", texts),
    ):
        with ShardWriter(path, "train", {name: (str(array.dtype), array.shape[1:])}, 2) as writer:
            writer.append(["a", "b", "c"], **{name: array})
    extract_sounds(params)  # none, which is all that can be
    assert set(read_arrays(params.paths.audio, "train")[1]) == {"tokens"}
    rows = token_rows(params, "train", video=False)
    assert len(rows) == 3
    assert set(rows.take([2, 0])) == {"tokens", "prompt"}
    np.testing.assert_array_equal(rows.take([2, 0])["prompt"], texts[[2, 0]])
    clips = load_token_clips(params, "train", video=False)
    np.testing.assert_array_equal(clips.prompt.numpy(), texts)


def test_words_are_all_that_a_prompt_can_be(t5):
    prompts = Prompts(t5, CPU, None)
    assert not prompts.hears
    found, negative = embed(Prompt.of([(0, 1, "rain"), (2, 3, "a dog")], negative="dog"), prompts)
    assert found.shape == (2, L, P)
    torch.testing.assert_close(found, t5.embed_text(["rain", "a dog"]).half().float())
    torch.testing.assert_close(negative, t5.embed_text(["dog"])[0].half().float())
    with pytest.raises(ValueError, match=r"like=drums\.wav: this model's prompts are words alone"):
        embed(Prompt.of(like="drums.wav"), prompts)
    for hear in (lambda: prompts.prompt_sound, lambda: prompts.audio_prompt(torch.zeros(1, 100))):
        with pytest.raises(ValueError, match="embeds texts alone, no sounds"):
            hear()


def test_stage_features_depends_on_the_encoder_where_it_is_chosen():
    file = "src/specmaskfoley/encoders/t5.py"
    assert file in lineage.stage_code("features", chosen())
    assert file not in lineage.stage_code("features", Params.load(ROOT / "params.yaml"))


@pytest.mark.official
def test_at_its_full_size_through_the_lock(tmp_path, golden: Golden, monkeypatch: pytest.MonkeyPatch):
    write_official(["t5_large", "t5_large_tokenizer"], tmp_path / "weights", golden)
    write_lock(tmp_path / "weights.lock.yaml")
    params = chosen(max_tokens=L)
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder(PROMPT, params, CPU)
    assert sum(value.numel() for value in encoder.parameters()) == 334_939_648
    assert not any(value.requires_grad for value in encoder.parameters())
    found = encoder.embed_text(["a dog barks", ""])
    assert found.shape == (2, *params.encoders.prompt.shape)
    assert (found.abs().amax(2) > 0).int().tolist() == [[1] * 4 + [0] * (L - 4), [0] * L]


def test_without_transformers_the_error_says_what_to_install(folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"T5 needs the package transformers, .* pip install -e '\.\[paper\]'"):
        SmallT5(folder, L)
