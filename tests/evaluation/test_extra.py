"""`specmaskfoley evaluate --extra`, with words and categories from a folder as FoleyBench's is."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import ROOT
from helpers.small_judges import make_place, write_clip, write_sound
from typer.testing import CliRunner

from specmaskfoley.commands.main import app
from specmaskfoley.encoders.mini import PromptEncoder
from specmaskfoley.encoders.trained import PROMPT, build_encoder, encoder_description, encoder_file, load_encoder
from specmaskfoley.media.sound import read_audio
from specmaskfoley.report.results import read_folder
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model

KEYS = ["3", "17", "2322", "40", "41", "5"]
CATEGORIES = ["FOOTSTEPS", "FOOTSTEPS", "FOOTSTEPS", "TOOLS", "TOOLS", "RAIN"]
CAPTIONS = ["Steps on wood, slowly.", "Steps", "Steps", "A hammer", "", "Rain"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judges, an encoder of prompts, and FoleyBench's files with six clips in place of 5,000."""
    root = tmp_path_factory.mktemp("place")
    params = make_place(root)
    shutil.copy(ROOT / "weights.lock.yaml", root)
    torch.manual_seed(2)
    file = root / encoder_file(params, PROMPT.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_model(file, build_encoder(PROMPT, params), **encoder_description(params, PROMPT.name))
    (root / "data").mkdir(exist_ok=True)
    rows = []
    for number, key in enumerate(KEYS):
        video = write_clip(root / "made" / f"{key}.mp4", number)
        rows.append(
            {"key": key, "video_data": base64.b64encode(video.read_bytes()).decode(), "caption": CAPTIONS[number]}
        )
        write_sound(root / "ours" / f"{key}.flac", 500 + number)
    for shard in range(2):
        part = pa.Table.from_pylist(rows[3 * shard : 3 * shard + 3])
        pq.write_table(part, root / "data" / f"train-0000{shard}-of-00002.parquet")
    with (root / "foleybench.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["key", "duration", "caption", "ucs_category", "metadata"])
        for key, caption, category in zip(KEYS, CAPTIONS, CATEGORIES, strict=True):
            table.writerow([key, 2.0, caption, category, json.dumps({"of": key})])
    return root


@pytest.fixture(autouse=True)
def _inside(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # a memory of its own


def run(place: Path, *arguments: object) -> tuple[int, str, str]:
    options = ["evaluate", "--params", str(place / "params.yaml"), "--reference", str(place / "made")]
    result = CliRunner().invoke(app, [*options, "--generated", str(place / "ours"), *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_recipe_of_the_docs_unpacks_foleybench(place, tmp_path):
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(recipe, {})  # in `place`, as a reader would in the folder that was downloaded
    for key in KEYS:
        assert (place / "foleybench" / f"{key}.mp4").read_bytes() == (place / "made" / f"{key}.mp4").read_bytes()


def test_clap_and_categories(place, tmp_path):
    code, _, said = run(place, "--out", tmp_path / "plain")
    assert code == 0, said
    more = ("--extra", "clap", "--labels", place / "foleybench.csv", "--by", "ucs_category", "--out", tmp_path / "more")
    code, told, said = run(place, *more)
    assert code == 0, said
    plain, found = read_folder(tmp_path / "plain"), read_folder(tmp_path / "more")
    for system in ("ground_truth", "ours"):  # one number more, the others as they were
        scores = dict(found.scores[system])
        clap = scores.pop("clap")
        assert scores == plain.scores[system]
        folder, suffix = ("made", ".mp4") if system == "ground_truth" else ("ours", ".flac")
        assert clap == pytest.approx(np.nanmean(cosines(place, folder, suffix)), rel=1e-3)
        interval = found.intervals[system]["clap"]
        assert interval.low < clap < interval.high
    assert "| CLAP ↑ |" in told

    parts = found.clips.subsets
    assert found.clips.by == "ucs_category"
    assert {name: part.clips for name, part in parts.items()} == {"FOOTSTEPS": 3, "TOOLS": 2}
    cosine = cosines(place, "ours", ".flac")
    assert parts["FOOTSTEPS"].scores["ours"]["clap"] == pytest.approx(cosine[:3].mean(), rel=1e-3)
    assert parts["TOOLS"].scores["ours"]["clap"] == pytest.approx(cosine[3], rel=1e-3)  # the other has no caption
    kl = [parts[name].scores["ours"]["kl"] for name in parts]
    assert min(kl) < found.scores["ours"]["kl"] or max(kl) > found.scores["ours"]["kl"]
    assert "### ours, by ucs_category" in told
    assert "### ground truth, by ucs_category" in told
    assert "| FOOTSTEPS |" in told
    assert "ucs_category: fewer than two clips are scored of RAIN" in told


def cosines(place: Path, folder: str, suffix: str) -> np.ndarray:
    """Sound and caption of each clip of KEYS, computed here; NaN without a caption."""
    params = Params.load(place / "params.yaml")
    encoder = load_encoder(PROMPT, params, torch.device("cpu"))
    found = []
    for key, caption in zip(KEYS, CAPTIONS, strict=True):
        wave = read_audio(
            place / folder / f"{key}{suffix}", sample_rate=encoder.sample_rate, num_samples=encoder.num_samples
        )
        with torch.inference_mode():
            sound, words = encoder.embed_audio(torch.from_numpy(wave)[None]), encoder.embed_text([caption])
        found.append(float(torch.cosine_similarity(sound, words)) if caption else np.nan)
    return np.array(found)


def test_a_sound_is_heard_once(place, tmp_path, monkeypatch):
    heard = []
    embed = PromptEncoder.embed_audio
    monkeypatch.setattr(PromptEncoder, "embed_audio", lambda self, wave: heard.append(len(wave)) or embed(self, wave))
    clap = ("--extra", "clap", "--labels", place / "foleybench.csv")
    first, second = run(place, *clap), run(place, *clap)
    assert first[0] == second[0] == 0, first[2]
    assert heard == [8, 8]  # twelve sounds in whole batches, in the first run alone
    assert first[1] == second[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--extra", "pesq"], "--extra pesq: expected clap or aesthetics"),
        (["--extra", "clap"], "--extra clap: needs words; give a table of them by --labels"),
        (["--by", "ucs_category"], "--by ucs_category: needs a table with this column; give it by --labels"),
        (["--labels", "foleybench.csv"], "--labels foleybench.csv: is for --extra clap or --by NAME"),
        (["--labels", "foleybench.csv", "--by", "colour"], "has the columns key, duration, caption, ucs_category"),
        (["--labels", "nowhere.csv", "--by", "x"], "nowhere.csv: no such file"),
        (["--as-published", "--extra", "clap"], "--as-published: av-benchmark's metrics alone"),
        (["--extra", "aesthetics"], "specmaskfoley weights fetch audiobox_aesthetics_config"),
    ],
)
def test_what_is_missing_is_named(place, arguments, message):
    code, told, said = run(place, *arguments)
    assert (code, told) == (2, "")
    assert message in said
    assert said.count("\n") == 1
