"""The report of a whole comparison, opened from disk in a real browser: it shows, plays, fits and asks for nothing."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import ROOT
from helpers.browser import BROWSER, FLAGS, require_browser
from matplotlib.image import imread

from specmaskfoley.commands.report import report
from specmaskfoley.media.writing import write_audio, write_video
from specmaskfoley.report import pictures
from specmaskfoley.report.results import SCORES_SCHEMA, write_evaluation
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import USABLE_SCHEMA, write_table
from specmaskfoley.systems import generated

pytestmark = pytest.mark.browser

GENERATED = generated(Params.load(ROOT / "params.yaml"))
METRICS = ("fd", "fad", "kl", "isc", "ib", "desync", "onset_f1")
BEST = dict(zip(METRICS, (60.0, 1.4, 0.6, 6.0, 0.5, 0.46, 0.87), strict=True))
CLIPS, LIST = 40, "0123456789abcdef"


def row(factor: float) -> dict[str, float]:
    """Scores that are worse by a factor."""
    return {
        name: value / factor if name in ("isc", "ib", "onset_f1") else value * factor for name, value in BEST.items()
    }


def intervals(scores: dict[str, dict[str, float]], *, sd: bool = True) -> dict[str, Any]:
    return {
        system: {
            name: {"low": 0.9 * value, "high": 1.15 * value, "sd": 0.03 * value if sd else None}
            for name, value in row.items()
        }
        for system, row in scores.items()
    }


def clips_json(scores: dict[str, dict[str, float]], **more: Any) -> dict[str, Any]:
    facts = {"clips": CLIPS, "coverage": 0.95, "hash": LIST, "takes": 3, "duration_s": 5.0} | more
    counts = {"clips": facts["clips"], "coverage": 0.95, "onset_clips": 30}
    return {"counts": dict.fromkeys(scores, counts), "profile": "mini", "judges": "mini"} | facts


def write_metrics(root: Path, factor: float) -> None:
    """What stage evaluate writes."""
    scores = {
        "ground_truth": row(1.0) | {"fd": 0.0, "fad": 0.0, "kl": 0.0},
        "specmaskfoley": row(factor),
        "backbone_text": row(2.5 * factor),
        "backbone_audio": row(2.7 * factor),
        "codec_roundtrip": row(0.5),
        "shuffled": row(factor) | {"kl": 2.4, "ib": 0.01, "desync": 1.2, "onset_f1": 0.15},
    }
    subset = {"clips": 21, "hash": "f" * 16, "scores": {name: row(1.2) for name in scores}}
    excluded = {"clip_07": "specmaskfoley: silent"}
    noted = {"clip_09": "reference: lasts 4.80 s, most others 5.00 s"}
    facts = clips_json(scores, excluded=excluded, noted=noted, subsets={"vggsounder": subset})
    write_evaluation(root / "metrics", scores, intervals(scores), facts)


def git(root: Path, *command: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    answer = subprocess.run(["git", *identity, *command], cwd=root, check=True, capture_output=True, text=True)
    return answer.stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "--force", "params.yaml", "dvc.lock", "metrics")
    git(root, "commit", "-q", "-m", "a run")
    return git(root, "rev-parse", "HEAD")


def write_lock(root: Path, samples: str) -> None:
    """What DVC's cache has the sounds under."""
    stages = {"sample": {"cmd": "", "outs": [{"path": "data/samples", "hash": "md5", "md5": samples}]}}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def write_cache(root: Path, samples: str) -> None:
    """The sounds of an experiment, as DVC's cache has them."""
    cache, listing = root / ".dvc" / "cache" / "files" / "md5", []
    for number in range(3):
        path = cache / samples[:2] / f"{number}{samples[2:].removesuffix('.dir')}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path.with_suffix(".flac"), 0.1 * np.sin(np.arange(22050) / (number + 5)), 22050)
        path.with_suffix(".flac").rename(path)
        listing.append({"md5": f"{samples[:2]}{path.name}", "relpath": f"take-0/specmaskfoley/clip_{number:02d}.flac"})
    (cache / samples[:2] / samples[2:]).write_text(json.dumps(listing))


def build(root: Path) -> Path:
    """A checkout after `dvc repro`, with a sweep, other systems, and three clips to see and to hear.

    DVC's cache has the sounds of two experiments; a third has those of this one, and those of a fourth are lost.
    """
    root.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", root)
    settings = yaml.safe_load((root / "params.yaml").read_text())
    git(root, "init", "-q", "-b", "main")
    write_metrics(root, 1.0)
    write_lock(root, "00ff.dir")
    baseline = commit(root)
    for name, change, factor, samples in (
        ("steps-4", {"sample": {"steps": 4}}, 1.5, "11ff.dir"),
        ("steps-8", {"sample": {"steps": 8}}, 1.2, "22ff.dir"),
        ("steps-16", {"sample": {"steps": 16}}, 0.97, "33ff.dir"),
        ("no-video", {"cfg": {"mode": "no_video"}}, 1.8, "00ff.dir"),
    ):
        changed = {
            key: value | change.get(key, {}) if isinstance(value, dict) else value for key, value in settings.items()
        }
        (root / "params.yaml").write_text(yaml.safe_dump(changed))
        write_metrics(root, factor)
        write_lock(root, samples)
        git(root, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", commit(root))
        git(root, "reset", "-q", "--hard", baseline)
    others = {"MMAudio": row(0.8), "FoleyCrafter": row(1.6)}
    ranges, folder = intervals(others, sd=False), root / "metrics" / "others"
    write_evaluation(folder / "same", others, ranges, clips_json(others, takes=1))
    others = {"ground_truth": row(0.3)} | others
    elsewhere = clips_json(others, hash="a" * 16, clips=31, excluded={"x": "MMAudio: no sound of this name"})
    write_evaluation(folder / "elsewhere", others, ranges, elsewhere)
    for samples in ("11ff.dir", "22ff.dir"):
        write_cache(root, samples)
    add_media(root)
    return root / "params.yaml"


def add_media(root: Path) -> None:
    rng, rate = np.random.default_rng(0), 22050
    time = np.arange(2 * rate) / rate
    usable, scored = [], []
    for number, label in enumerate(("dog barking", "hammering nail & wood", "church bell ringing")):
        clip = f"clip_{number:02d}"
        tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * time) * np.exp(-3 * (time % 0.5))
        samples = root / "data" / "samples"
        for folder in ("ground_truth", *(f"take-0/{name}" for name in GENERATED)):
            (samples / folder).mkdir(parents=True, exist_ok=True)
            write_audio(samples / folder / f"{clip}.flac", tone + 0.01 * rng.normal(size=len(time)), rate)
        frames = np.zeros((50, 64, 64, 3), np.uint8)
        for index in range(50):
            frames[index, 10:30, index : index + 10] = (200, 120, 60)
        (samples / "videos").mkdir(exist_ok=True)
        write_video(samples / "videos" / f"{clip}.mp4", frames, 25, tone, rate)
        mels = {"ground truth": rng.normal(-40, 9, (80, 170)), "SpecMaskFoley": rng.normal(-40, 9, (80, 170))}
        pictures.spectrograms(root / "metrics" / "pictures" / f"{clip}.png", mels, [0.5, 1.0], 2.0, label)
        usable.append(
            {"clip_id": clip, "path": f"{clip}.mp4", "label": label, "split": "test", "source": "world",
             "state": "ready", "reason": ""}
        )  # fmt: skip
        for system in ("ground_truth", *GENERATED):
            timing = {"onset_f1": 0.8} if number else {}
            scored.append(
                {"system": system, "clip_id": clip, "label": label, "kl": 0.5, "ib": 0.4, "desync": 0.3, **timing}
            )
    write_table(root / "data" / "usable.parquet", usable, USABLE_SCHEMA)
    write_table(root / "data" / "evaluation" / "clips.parquet", scored, SCORES_SCHEMA)
    (root / "metrics" / "curves").mkdir()
    (root / "metrics" / "curves" / "control.csv").write_text("step,loss,val_loss\n1,3,3.1\n50,2,2.2\n100,1.5,1.9\n")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `build`, written by the code behind `specmaskfoley report`."""
    root = tmp_path_factory.mktemp("showcase")
    here = Path.cwd()
    try:
        return report(build(root / "project"), root / "comparison")
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(BROWSER), args=FLAGS)
        yield launched
        launched.close()


class Opened:
    """The page in a window of some width, and what it asked for and complained of."""

    def __init__(self, browser: Any, page: Path, width: int) -> None:
        self.tab = browser.new_page(viewport={"width": width, "height": 900})
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(page.as_uri())
        self.tab.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
        self.tab.wait_for_load_state("load")


@pytest.fixture(params=[1280, 400])
def opened(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    opened = Opened(browser, page, request.param)
    yield opened
    opened.tab.close()


def test_nothing_is_asked_of_a_network(opened: Opened) -> None:
    assert opened.asked
    assert all(url.startswith(("file:", "data:")) for url in opened.asked)
    assert opened.complaints == []


def test_every_table_has_its_rows(opened: Opened) -> None:
    found = opened.tab.evaluate(
        """[...document.querySelectorAll('table')].map(table => {
            const home = table.closest('details') || table.closest('section');
            return [home.querySelector('h2, summary').innerText, table.tBodies[0].rows.length];
        })"""
    )
    assert dict(found) == {
        "Scores": 8,  # six systems, and two others on the same terms
        "Subset vggsounder": 6,
        "Other systems: elsewhere": 3,
        "Experiments": 5,
        "Published on VGGSound": 13,
        "Published on VGGSound by HunyuanVideo-Foley": 6,
        "Published: backbone, steps and guidance": 7 + 6,  # all but the form of guidance that was not run
        "SpecMaskFoley, class by class": 3,
    }


def test_every_picture_is_there(opened: Opened) -> None:
    widths = opened.tab.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    assert len(widths) == 3 + 3 + 1  # figures, clips, training curves
    assert all(width > 0 for width in widths)


def test_every_player_can_play(opened: Opened) -> None:
    players = "[...document.querySelectorAll('audio, video')]"
    opened.tab.wait_for_function(f"{players}.every(player => player.readyState >= 1 || player.error)")
    assert opened.tab.evaluate(f"{players}.map(player => player.error && player.error.message)") == [None] * 3 * (6 + 2)
    times = opened.tab.evaluate(
        """async () => {
            const player = document.querySelector('audio'), before = player.currentTime;
            await player.play();
            await new Promise(resolve => setTimeout(resolve, 700));
            return [before, player.currentTime, player.duration];
        }"""
    )
    assert times[0] == 0
    assert times[1] > 0.2
    assert times[2] == pytest.approx(2.0, abs=0.01)


def test_sound_of_other_experiments_stands_beside_ones_own(opened: Opened) -> None:
    titles = opened.tab.evaluate(
        """[...document.querySelectorAll('article')].map(clip =>
            [...clip.querySelectorAll('.elsewhere figcaption')].map(caption => caption.innerText.split(' (')[0]))"""
    )
    assert titles == [["sample.steps=4", "sample.steps=8"]] * 3
    assert "DVC's cache has no sounds of steps-16" in opened.tab.inner_text("body")


def order(opened: Opened, title: str) -> list[str]:
    """The first words of the rows of a table."""
    return opened.tab.evaluate(
        """title => [...document.querySelectorAll('section')].find(part => part.querySelector('h2').innerText === title)
            .querySelectorAll('tbody th').values().map(head => head.childNodes[0].textContent.trim()).toArray()""",
        title,
    )


def test_columns_are_sorted_by_mouse_and_keyboard(opened: Opened) -> None:
    table = opened.tab.locator("section", has=opened.tab.locator("h2", has_text=re.compile("^Scores$")))
    before = order(opened, "Scores")
    ib = table.get_by_role("button", name="IB")
    ib.click()  # higher is better
    assert order(opened, "Scores")[:2] == ["codec round trip", "MMAudio"]
    assert table.locator("th[aria-sort]").evaluate_all("heads => heads.map(head => head.ariaSort)") == ["descending"]
    fad = table.get_by_role("button", name="FAD")
    fad.focus()
    opened.tab.keyboard.press("Enter")
    assert order(opened, "Scores")[:3] == ["ground truth", "codec round trip", "MMAudio"]
    opened.tab.keyboard.press("Space")
    assert order(opened, "Scores")[-3:] == ["MMAudio", "codec round trip", "ground truth"]
    opened.tab.keyboard.press("Enter")
    assert order(opened, "Scores") == before
    assert table.locator("th[aria-sort]").count() == 0


def test_a_row_without_a_number_is_last_and_one_beneath_another_stays_there(opened: Opened) -> None:
    title = "Published: backbone, steps and guidance"
    section = opened.tab.locator("section", has=opened.tab.locator("h2", has_text=title))

    def pairs() -> set[tuple[str, str]]:
        rows = section.locator("tbody tr").all_inner_texts()
        return {(above, below) for above, below in pairwise(rows) if below.startswith("measured here")}

    before = pairs()
    assert len(before) > 3
    kl = section.get_by_role("button", name="KL")
    for direction in ("ascending", "descending"):
        kl.click()
        assert section.locator("th[aria-sort]").get_attribute("aria-sort") == direction
        published = [name for name in order(opened, title) if not name.startswith("measured")]
        assert published[-1] == "SpecMaskGIT, text prompt"  # whose KL is not legible
        assert pairs() == before


def test_the_contents_lead_to_a_part(opened: Opened) -> None:
    opened.tab.get_by_role("navigation").get_by_role("link", name="Clips").click()
    assert opened.tab.evaluate("location.hash") == "#clips"
    assert opened.tab.evaluate("document.getElementById('clips').getBoundingClientRect().top") < 900


def test_it_fits_the_window_and_is_not_blank(opened: Opened) -> None:
    inner, scrolled = opened.tab.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert scrolled <= inner
    if inner >= 1280:
        wide = "[...document.querySelectorAll('.wide')]"
        assert opened.tab.evaluate(f"{wide}.every(box => box.scrollWidth <= box.clientWidth)"), "a table is cut off"
    picture = imread(io.BytesIO(opened.tab.screenshot(full_page=True)), format="png")[..., :3]
    assert picture.shape[1] == inner
    page_colour = picture[0, 0]
    drawn = np.abs(picture - page_colour).max(axis=-1) > 0.1
    assert drawn.mean() > 0.05
    assert picture.reshape(-1, 3)[::997].std() > 0.05
    # Nothing is drawn at the very edge: what is too wide scrolls inside the page.
    assert not drawn[:, -1].any()
