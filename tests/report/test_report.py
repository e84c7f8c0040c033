"""The report, its tables and its pictures: one file, nothing from outside, nothing lost, safe against odd labels."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from specmaskfoley.report import page as report
from specmaskfoley.report import pictures
from specmaskfoley.report.experiments import Experiment
from specmaskfoley.report.page import ReportClip, ReportContext
from specmaskfoley.report.pictures import Measured, Point
from specmaskfoley.report.published import (
    APART,
    SOURCES,
    measured_like,
    published_apart,
    published_settings,
    published_systems,
)
from specmaskfoley.report.results import (
    Evaluation,
    Interval,
    ScoredClips,
    read_evaluation,
    read_folder,
    write_evaluation,
)
from specmaskfoley.report.tables import (
    Entry,
    ScoreTable,
    category_table,
    class_table,
    markdown_scores,
    published_table,
    score_table,
    system_entries,
    to_markdown,
)

SCORES: dict[str, dict[str, float | None]] = {
    "ground_truth": {"fd": 0.0, "ib": 0.5, "onset_f1": 1.0, "clips": 96},
    "codec_roundtrip": {"fd": 1.0, "ib": 0.45, "onset_f1": 0.9, "clips": 96},
    "specmaskfoley": {"fd": 7.125, "ib": 0.31, "onset_f1": 0.6, "clips": 96},
    "backbone_text": {"fd": 6.5, "ib": 0.31, "onset_f1": None, "clips": 96},
}
CLIPS = ScoredClips(clips=96, coverage=0.96, hash="0123456789abcdef", takes=3, duration_s=5.0, excluded={"a": "silent"})
PNG_START = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Elements with their attributes, the text, and whether every element is closed."""

    void = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", list[str]()
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.void:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def media(tmp_path: Path) -> dict[str, Path]:
    files = {"picture": "a.png", "true": "true.flac", "generated": "generated.wav", "video": "a.mp4"}
    paths = {name: tmp_path / file for name, file in files.items()}
    for index, path in enumerate(paths.values()):
        path.write_bytes(bytes([index]) * 3000)
    return paths


def table(scores: dict[str, dict[str, float | None]], **options: Any) -> ScoreTable:
    return score_table("Scores", system_entries(scores), **options)


def context(media: dict[str, Path], **changes: Any) -> ReportContext:
    clip = ReportClip(
        clip_id="test_00001",
        label="ball bouncing on wood",
        picture=media["picture"],
        sounds={"ground truth": media["true"], "generated": media["generated"]},
        video=media["video"],
    )
    values = {
        "title": "SpecMaskFoley: mini", "tables": [table(SCORES)],
        "settings": {"profile": "mini", "seed": 7, "cfg.scale": 3.0},
        "curves": [("codec", media["picture"])], "clips": [clip],
        "notes": ["3 clips set aside"],
    }  # fmt: skip
    return ReportContext(**(values | changes))


def write(path: Path, what: ReportContext, **options: Any) -> tuple[str, Page]:
    report.write_report(path / "report.html", what, **options)
    text = (path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def to_html(path: Path, table: ScoreTable) -> str:
    report.write_report(path / "table.html", ReportContext(title="", tables=[table]))
    return (path / "table.html").read_text(encoding="utf-8")


def test_the_report_stands_alone(tmp_path: Path, media: dict[str, Path]) -> None:
    text, page = write(tmp_path, context(media))
    links = [v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "poster")]
    assert len(links) == 5
    assert all(link is not None and link.startswith("data:") for link in links)
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    assert not re.search(r"https?:|@import|url\(|<link", text)
    # The one script is the only one that the page allows.
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = [str(meta["content"]) for meta in page.all("meta") if "http-equiv" in meta]
    assert policy[0].endswith(f"script-src 'sha256-{digest}'")
    assert [str(v["src"]).split(";")[0] for v in page.all("audio")] == ["data:audio/flac", "data:audio/wav"]
    assert str(page.all("video")[0]["src"]).startswith("data:video/mp4;base64,AwMD")


def test_the_report_is_accessible_and_says_what_was_run(tmp_path: Path, media: dict[str, Path]) -> None:
    text, page = write(tmp_path, context(media))
    assert page.all("html")[0]["lang"] == "en"
    assert "<title>SpecMaskFoley: mini</title>" in text
    assert all(image["alt"] for image in page.all("img"))
    assert all(player["aria-label"] for player in page.all("audio") + page.all("video"))
    for words in ("seed7", "cfg.scale3.0", "profilemini", "3 clips set aside", "test_00001", "ball bouncing"):
        assert words in page.text


def test_a_warning_stands_at_the_top_of_page_and_markdown(tmp_path: Path, media: dict[str, Path]) -> None:
    text, _ = write(tmp_path, context(media, warning="other settings"))
    assert text.index('<p class="warning" role="alert">other settings</p>') < text.index("<h2")
    assert 'class="warning"' not in write(tmp_path, context(media))[0]
    report.write_markdown(tmp_path / "table.md", context(media, warning="other settings"))
    assert (tmp_path / "table.md").read_text().startswith("> **Warning:** other settings\n\n### Scores\n")


def test_the_contents_lead_to_every_part(tmp_path: Path, media: dict[str, Path]) -> None:
    folded = class_table("Classes", [{"label": "dog", "kl": 1.0}])
    tables = [table(SCORES), published_table("Published: A & B", published_settings()), folded]
    _, page = write(tmp_path, context(media, tables=tables, figures=[("f", media["picture"])]))
    inner = [str(link["href"])[1:] for link in page.all("a") if str(link["href"]).startswith("#")]
    assert inner == ["scores", "published-a-b", "figures", "in-detail", "clips", "training"]
    assert inner == [heading["id"] for heading in page.all("h2") if "id" in heading]


def test_sound_of_other_experiments_is_there_for_as_many_clips_as_there_is_room(
    tmp_path: Path, media: dict[str, Path]
) -> None:
    (tmp_path / "0a1b").write_bytes(bytes(9000))  # DVC's cache names files by their hash
    first = context(media).clips[0]
    clips = [replace(first, clip_id=name, elsewhere={"cfg.scale=3": tmp_path / "0a1b"}) for name in ("one", "two")]
    _, page = write(tmp_path, context(media, clips=clips))
    assert [str(player["src"])[:15] for player in page.all("audio")].count("data:audio/flac") == 4
    assert "cfg.scale=3: ball bouncing on wood, clip two" in [player["aria-label"] for player in page.all("audio")]
    own, other = 5 * 4200, 12200  # a clip's files of this experiment, and its sound in the other
    _, page = write(tmp_path, context(media, clips=clips, curves=[]), max_bytes=50_000 + 2 * own + other)
    assert len(page.all("audio")) == 4 + 1
    assert page.text.count("left out to keep this file small: cfg.scale=3") == 1


def marked(table: ScoreTable) -> dict[str, list[str]]:
    """Line -> its marked numbers: best in **, second best in <u>."""
    lines = to_markdown(table).splitlines()
    rows = [line for line in lines if line.startswith("| ")][2:]
    return {
        line.title: re.findall(r"\*\*[^*|]+\*\*|<u>.+?</u>", row.split(" | ", 1)[1])
        for line, row in zip(table.lines, rows, strict=True)
    }


def test_the_best_generated_system_is_marked_and_references_never_are(tmp_path: Path) -> None:
    assert marked(table(SCORES)) == {
        "ground truth": [],
        "codec round trip": [],
        "SpecMaskFoley": ["**0.310**"],  # a tie in IB; alone in onset F1, which is no contest
        "backbone, text": ["**6.50**", "**0.310**"],
    }
    html = to_html(tmp_path, table(SCORES))
    assert re.findall(r'class="best" data-value="[^"]+"><strong>(.*?)</strong>', html) == ["0.310", "6.50", "0.310"]
    assert html.count('<tr class="reference">') == 2


def test_second_best_is_marked_among_three_as_printed() -> None:
    scores = {name: {"fd": fd} for name, fd in (("a", 3.0), ("b", 2.0), ("c", 2.004), ("d", 1.0))}
    assert marked(table(scores)) == {"a": [], "b": ["<u>2.00</u>"], "c": ["<u>2.00</u>"], "d": ["**1.00**"]}
    assert marked(table({name: scores[name] for name in "ab"})) == {"a": [], "b": ["**2.00**"]}
    assert marked(table({name: {"fd": 1.0} for name in "abc"})) == {name: ["**1.00**"] for name in "abc"}
    odd = {"a": {"fd": float("nan")}, "b": {"fd": 2.0}, "c": {"fd": 3.0}, "d": {"fd": None}}
    assert marked(table(odd)) == {"a": [], "b": ["**2.00**"], "c": [], "d": []}


def test_scores_that_tell_no_best_mark_none_and_say_why(tmp_path: Path) -> None:
    few = CLIPS.model_copy(update={"ranked": False, "warnings": ["Few clips."]})
    found = table(SCORES, clips=few)
    assert not any(marks for marks in marked(found).values())
    assert "bold" not in " ".join(found.notes)
    assert '<p class="caution">Few clips.</p>' in to_html(tmp_path, found)
    assert to_markdown(found).startswith("### Scores\n\n> **Warning:** Few clips.\n\n| system |")
    assert "**" in markdown_scores(SCORES)
    assert "**" not in markdown_scores(SCORES, ranked=False)


def test_a_column_is_there_for_what_some_system_has() -> None:
    found = table(SCORES | {"other": {"surprise": 0.123456}})
    assert found.headings == ["FD ↓", "IB ↑", "Onset F1 ↑", "surprise"]
    assert found.lines[-1].cells[-1].text == "0.1235"
    assert found.lines[3].cells[2].text == "n/a"
    assert set(found.legend) == {"ground truth", "codec round trip", "SpecMaskFoley", "backbone, text",
                                 "FD ↓", "IB ↑", "Onset F1 ↑"}  # fmt: skip


def test_one_n_stands_beside_the_table_and_several_in_it() -> None:
    assert table(SCORES).notes[0] == "N = 96 clips."
    assert (
        table(SCORES, clips=CLIPS).notes[0]
        == "N = 96 clips, 96.0 % of those wanted; list 0123456789abcdef; 5 s each; 3 takes; 1 not scored."
    )
    several = table(SCORES | {"other": {"fd": 1.0, "clips": 12}})
    assert "clips" in several.headings
    assert not any("N =" in note for note in several.notes)


def test_intervals_and_deviations_stand_beside_the_scores(tmp_path: Path) -> None:
    wide = {"fd": Interval(low=6.0, high=9.5, sd=0.25), "clips": Interval(low=1, high=2)}
    entries = system_entries(SCORES, {"specmaskfoley": wide, "backbone_text": {"fd": Interval(low=6.0, high=7.0)}})
    found = score_table("Scores", entries, CLIPS)
    assert "| 7.12 ± 0.25<br><sub>[6.00, 9.50]</sub> |" in to_markdown(found)
    assert "| **6.50**<br><sub>[6.00, 7.00]</sub> |" in to_markdown(found)
    html = to_html(tmp_path, found)
    assert 'title="95 % interval [6.00, 9.50]"' in html
    assert '<span class="sd">± 0.25</span>' in html
    assert "deviation over takes" in html
    alone = score_table("Scores", system_entries(SCORES, {"backbone_text": {"fd": Interval(low=6, high=7)}}))
    assert "±" not in to_html(tmp_path, alone)


def test_published_systems_are_printed_as_published(tmp_path: Path) -> None:
    found = published_table("Published", published_systems())
    rows = {line.title: [cell.text for cell in line.cells] for line in found.lines}
    assert rows["SpecMaskFoley"] == [
        *("109", "1.03", "1.76", "26.4", "0.65", "0.47"),
        *("300 M (126 M trainable)", "Synchformer & CLIP", "SpecMaskFoley"),
    ]
    assert rows["VATT"][5:] == ["-", "-", "eva-CLIP", "SpecMaskFoley"]
    assert {line.title: line.about for line in found.lines}["ReWaS"] == (
        "ControlNet, handcrafted features; diffusion on AudioLDM"
    )
    assert marked(found)["PAVAS-L"] == ["**47.38**", "**35.41**"]
    assert rows["PAVAS-L"][:5] == ["47.38", "?", "?", "35.41", "0.446"]
    assert marked(found)["MMAudio-L-44.1kHz"] == ["<u>60.60</u>", "**1.40**", "**0.442**"]
    html = to_html(tmp_path, found)
    assert all(name in html and f"arXiv {number}" in html for name, number in SOURCES.items() if name != APART)
    assert '<a href="https://arxiv.org/abs/2407.05551">ReWaS</a>' in html
    assert "| [ReWaS](https://arxiv.org/abs/2407.05551)<br><sub>" in to_markdown(found)
    assert f"| [MMAudio](https://arxiv.org/abs/{SOURCES['MMAudio']}) |" in to_markdown(found)
    assert "not measured here" in html


def test_an_evaluation_with_other_numbers_for_the_same_systems_stands_apart() -> None:
    found = published_table("Published", published_apart(), note="A note.")
    assert found.headings == ["FD ↓", "IB \u00d7 100 ↑", "DeSync (s) ↓", "source"]
    rows = {line.title: [cell.text for cell in line.cells] for line in found.lines}
    assert rows["MMAudio"] == ["116.92", "33", "0.47", APART]
    assert rows[APART] == ["145.22", "36", "0.53", APART]
    assert marked(found)[APART] == ["**36**", "<u>0.53</u>"]
    assert {row.source for row in published_systems()}.isdisjoint({APART})


def test_categories_are_rows_without_marks() -> None:
    parts = {
        "FOOTSTEPS": {"clips": 31, "scores": {"ours": {"fd": 5.0, "clap": 0.25}, "ground_truth": {"clap": 0.5}}},
        "TOOLS": {"clips": 2, "scores": {"ours": {"clap": 0.125}, "ground_truth": {"clap": 0.5}}},
    }
    found = category_table("ours", "ucs_category", parts)
    assert found.title == "ours, by ucs_category"
    assert [line.title for line in found.lines] == ["FOOTSTEPS", "TOOLS"]
    cells = [[cell.text for cell in line.cells] for line in found.lines]
    assert found.headings == ["FD ↓", "CLAP ↑", "clips"]
    assert cells == [["5.00", "0.250", "31"], ["n/a", "0.125", "2"]]
    assert not any(cell.mark for line in found.lines for cell in line.cells)
    assert category_table("ground_truth", "ucs_category", parts).title == "ground truth, by ucs_category"


def test_published_settings_are_printed_as_published() -> None:
    found = published_table("Published", published_settings())
    rows = {(line.title, line.about): [cell.text for cell in line.cells] for line in found.lines}
    assert len(rows) == 7
    assert "video features" not in found.headings
    assert rows["SpecMaskGIT, text prompt", "16 steps, system backbone_text"] == [
        *("223", "4.97", "2.77", "10.2", "1.28", "0.32"), "SpecMaskFoley"
    ]  # fmt: skip
    assert rows["SpecMaskGIT, text prompt", "12 steps, system backbone_text"][2:6] == ["?", "9.9", "?", "?"]
    assert rows["without the video term", "12 steps, cfg.mode=no_video"][:2] == ["125", "1.33"]
    assert {row.source for row in published_systems() + published_apart() + published_settings()} == set(SOURCES)


def run(name: str, *, mode: str = "multi", steps: int = 12, scale: float = 3.0, **more: Any) -> Experiment:
    settings = {"cfg.mode": mode, "cfg.scale": scale, "sample.steps": steps}
    scores = Evaluation(scores={"specmaskfoley": {"fad": 1.0}, "backbone_text": {"fad": 5.0}})
    whole = {"revision": "", "baseline": "", "settings": settings, "evaluation": scores, "judges": "mini"}
    return Experiment(name=name, **(whole | more))


def test_a_published_row_finds_the_experiment_that_is_like_it() -> None:
    runs = [
        run("loud", scale=1.5), run("a"), run("b"), run("form", mode="no_video"), run("more", steps=16),
        run("fresh", mode="no_text_video", changed={"cfg.mode": "multi"}),  # settings are those of the scores
    ]  # fmt: skip
    found = {(row.system, row.mode, row.steps): measured_like(row, runs) for row in published_settings()}
    names = {key: like and (like[0].name, like[1]) for key, like in found.items()}
    assert names == {
        ("backbone_text", "", "16"): ("more", {}),
        ("backbone_audio", "", "16"): None,  # none has scores of it
        ("backbone_text", "", "12"): ("a", {}),
        ("backbone_audio", "", "12"): None,
        ("specmaskfoley", "multi", "12"): ("a", {}),
        ("specmaskfoley", "no_text_video", "12"): ("fresh", {}),
        ("specmaskfoley", "no_video", "12"): ("form", {}),
    }
    row = next(row for row in published_settings() if row.mode == "multi")
    alone = measured_like(row, runs[:1])
    assert alone is not None
    assert (alone[0].name, alone[1]) == ("loud", {"cfg.scale": 1.5})


def test_what_is_measured_here_stands_beneath_and_does_not_compete(tmp_path: Path) -> None:
    rows = published_settings()
    here = Entry(
        title="measured here (profile mini)", scores={"fd": 1.0, "ib": 0.5149, "isc": 9.0}, about="mini judges"
    )
    found = published_table("Published", rows, {rows[4]: here}, "A note.")
    line = found.lines[5]
    assert [cell.text for cell in line.cells] == ["1.00", "-", "-", "51.5", "-", "-", "here"]
    assert marked(published_table("Published", rows)) == {name: marks for name, marks in marked(found).items()
                                                          if name != here.title}  # fmt: skip
    assert "| *measured here (profile mini)*<br><sub>mini judges</sub> | 1.00 |" in to_markdown(found)
    assert "A note." in found.notes
    assert '<tr class="reference beneath"><th scope="row">measured here' in to_html(tmp_path, found)


def test_classes_are_means_of_their_clips() -> None:
    rows = [
        {"label": "dog", "kl": 1.0, "onset_f1": None},
        {"label": "bell", "kl": 0.5, "onset_f1": 0.25},
        {"label": "dog", "kl": 2.0, "onset_f1": 0.75},
    ]
    found = class_table("Classes", rows)
    assert found.headings == ["clips", "KL ↓", "Onset F1 ↑"]
    assert [(line.title, [cell.text for cell in line.cells]) for line in found.lines] == [
        ("bell", ["1", "0.500", "0.250"]),
        ("dog", ["2", "1.500", "0.750"]),
    ]
    assert found.folded


WRITTEN = {
    "systems/specmaskfoley.json": '{"fd": 1.5}',
    "intervals.json": '{"specmaskfoley": {"fd": {"low": 1, "high": 2, "sd": null}}}',
    "clips.json": '{"clips": 96, "hash": "a", "counts": {"specmaskfoley": {"clips": 96}}, "later": 1}',
}


def test_an_evaluation_is_read_with_its_counts() -> None:
    found = read_evaluation(WRITTEN.get, "metrics")
    assert found.scores == {"specmaskfoley": {"fd": 1.5, "clips": 96}}
    assert found.intervals["specmaskfoley"]["fd"] == Interval(low=1, high=2)
    assert found.clips == ScoredClips(clips=96, hash="a", counts={"specmaskfoley": {"clips": 96}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"clips.json": None},
            r"metrics/clips\.json: no such file; dvc repro or specmaskfoley evaluate --out writes it",
        ),
        ({"systems/specmaskfoley.json": None}, r"metrics/systems/specmaskfoley\.json: no such file"),
        ({"intervals.json": "{"}, r"metrics/intervals\.json: not valid JSON"),
        ({"systems/specmaskfoley.json": '{"fd": "low"}'}, r"metrics: scores\.specmaskfoley\.fd.*valid number"),
        ({"clips.json": '{"counts": 3}'}, r"metrics: counts: .*valid dict.*; written by another version\?"),
    ],
)
def test_what_is_wrong_with_an_evaluation_is_named(change: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_evaluation((WRITTEN | change).get, "metrics")


def test_a_folder_keeps_no_system_of_an_earlier_evaluation(tmp_path: Path) -> None:
    write_evaluation(tmp_path, {"old": {"fd": 1.0}, "both": {"fd": 2.0}}, {}, {"counts": {"old": {}, "both": {}}})
    write_evaluation(tmp_path, {"both": {"fd": 3.0}}, {}, {"counts": {"both": {}}})
    assert [file.name for file in (tmp_path / "systems").iterdir()] == ["both.json"]
    assert read_folder(tmp_path).scores == {"both": {"fd": 3.0}}


def test_odd_labels_do_no_harm(tmp_path: Path, media: dict[str, Path]) -> None:
    odd = '</h3><script>alert("1")</script> "rock & roll" $title'
    clip = ReportClip(clip_id='<b>"', label=odd, picture=media["picture"])
    text, page = write(
        tmp_path,
        context(
            media,
            title=odd,
            clips=[clip],
            notes=[odd],
            warning=odd,
            settings={odd: odd},
            tables=[table({odd: {odd: 1.0}})],
            left_out={odd: {odd: odd}},
        ),
    )
    assert len(page.all("script")) == 1  # ours
    assert not page.all("b")
    assert page.text.count(odd) == 12
    assert f'Spectrograms of {odd}, clip <b>"' in [image["alt"] for image in page.all("img")]
    assert text.count("<script") == 1


def test_a_full_report_names_what_it_leaves_out(tmp_path: Path, media: dict[str, Path]) -> None:
    text, page = write(tmp_path, context(media), max_bytes=50_000 + 10_000)
    assert len(text) < 60_000
    assert len(page.all("img")) == 2
    assert not page.all("video")
    assert page.text.count("left out") == 3
    assert "a.mp4" in page.text
    assert "generated.wav" in page.text


def test_missing_and_unplayable_files_are_named(tmp_path: Path, media: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        write(tmp_path, context(media, curves=[("x", tmp_path / "gone.png")]))
    with pytest.raises(ValueError, match=r"\.txt"):
        write(tmp_path, context(media, curves=[("x", tmp_path / "a.txt")]))
    assert not list(tmp_path.glob("*.html")) + list(tmp_path.glob(".tmp*"))


def test_a_report_without_clips_and_curves(tmp_path: Path, media: dict[str, Path]) -> None:
    _, page = write(tmp_path, context(media, clips=[], curves=[]))
    assert "Clips" not in page.text
    assert "Training" not in page.text


def test_the_markdown_file_has_the_open_tables(tmp_path: Path, media: dict[str, Path]) -> None:
    folded = class_table("Classes", [{"label": "dog", "kl": 1.0}])
    shown = context(media, tables=[table(SCORES), folded], left_out={"Clips not scored": {"a": "silent", "b": "gone"}})
    report.write_markdown(tmp_path / "table.md", shown)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "### Scores"
    assert lines[2] == "| system | FD ↓ | IB ↑ | Onset F1 ↑ |"
    assert lines[4] == "| *ground truth* | 0.00 | 0.500 | 1.000 |"
    assert lines[6] == "| SpecMaskFoley | 7.12 | **0.310** | 0.600 |"
    assert lines[-1] == "Clips not scored: 2, named in the page."
    assert "Classes" not in "".join(lines)


def test_odd_names_do_not_break_a_markdown_table() -> None:
    lines = markdown_scores({"a|b *c* <d>\n": {"fd": 1.0}}).splitlines()
    assert lines[2] == r"| a\|b \*c\* &lt;d> | 1.00 |"


def test_a_folded_table_and_a_list_are_closed_at_first(tmp_path: Path, media: dict[str, Path]) -> None:
    folded = class_table("Classes", [{"label": "dog", "kl": 1.0}])
    text, page = write(tmp_path, context(media, tables=[folded], left_out={"Clips not scored": {"a": "silent"}}))
    assert "<details><summary>Classes</summary>" in text
    assert "<details><summary>Clips not scored (1)</summary>" in text
    assert all("open" not in attributes for attributes in page.all("details"))


def test_pictures_are_equal_bytes_for_equal_arrays(tmp_path: Path) -> None:
    mels = {"ground truth": np.random.default_rng(0).normal(-40, 9, (80, 100)), "generated": np.zeros((80, 90))}
    curves = {"loss": [(1, 2.0), (2, 1.0)], "cost in $": [(1, 0.1)], "$x": [(2, 3.0)], "val_loss": [(2, 1.5)]}
    for name in ("a", "b"):
        pictures.spectrograms(tmp_path / name / "s.png", mels, [0.5], 1.0, "odd $title$ <&>")
        pictures.training_curves(tmp_path / name / "c.png", curves, "train_codec")
        pictures.quality_and_sync(tmp_path / name / "q.png", points("a $x$", "b"), "odd $title$")
        pictures.scores_against_steps(tmp_path / name / "n.png", {"FAD": {4: Measured(value=1.0)}}, "steps")
    for kind in ("s.png", "c.png", "q.png", "n.png"):
        first, second = ((tmp_path / name / kind).read_bytes() for name in ("a", "b"))
        assert first == second
        assert first.startswith(PNG_START)
        assert b"Software" not in first
        assert b"tIME" not in first


def points(*labels: str, **changes: Any) -> list[Point]:
    return [
        Point(label=label, group="g", fad=Measured(value=number + 1.0), desync=Measured(value=0.5), **changes)
        for number, label in enumerate(labels)
    ]


def test_published_points_and_intervals_look_different(tmp_path: Path) -> None:
    wide = Measured(value=1.0, low=0.5, high=1.2)
    drawn = {
        "plain": points("a", "b"),
        "published": points("a", "b", published=True),
        "wide": [Point(label="a", group="g", fad=wide, desync=Measured(value=0.5)), *points("a", "b")[1:]],
        "named": points("a", "c"),
    }
    for name, what in drawn.items():
        pictures.quality_and_sync(tmp_path / f"{name}.png", what, "t")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 4


def test_names_without_room_are_left_out_but_never_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    crowd = [
        Point(label=f"a rather long name {number}", group="g", fad=Measured(value=fad), desync=Measured(value=desync))
        for number, (fad, desync) in enumerate(rng.uniform(1, 2, (60, 2)))
    ]
    ours = Point(label="SpecMaskFoley", group="h", fad=Measured(value=1.5), desync=Measured(value=1.5))
    found = names_in([*crowd, ours], monkeypatch)
    assert 5 < len(found) < 61
    assert "SpecMaskFoley" in found


def test_an_event_and_the_sound_change_the_picture(tmp_path: Path) -> None:
    silence, sound = np.full((80, 50), -120.0), np.random.default_rng(1).normal(-40, 9, (80, 50))
    for name, mel, events in (("a", silence, []), ("b", silence, [0.3]), ("c", sound, [])):
        pictures.spectrograms(tmp_path / f"{name}.png", {"x": mel}, events, 1.0, "t")
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abc"}) == 3


def test_a_level_has_the_same_colour_in_every_picture(tmp_path: Path) -> None:
    """The loudest of a quiet clip must not look like that of a loud one."""
    for name, level in (("quiet", -60.0), ("loud", -10.0), ("twice", -60.0)):
        decibels = {"a": np.full((80, 50), level)} | ({"b": np.full((80, 50), 0.0)} if name == "twice" else {})
        pictures.spectrograms(tmp_path / f"{name}.png", decibels, [], 1.0, "t")
    quiet, loud, twice = (Counter(map(tuple, imread(tmp_path / f"{name}.png").reshape(-1, 4).tolist())) for name in
                          ("quiet", "loud", "twice"))  # fmt: skip
    most = [max((pixel for pixel in found if min(pixel[:3]) < 0.95), key=found.__getitem__) for found in (quiet, loud)]
    assert most[0] != most[1]
    assert twice[most[0]] > 20_000


def test_a_curve_and_its_validation_share_a_panel_and_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.append(figure))
    points = [(1, 2.0), (2, 1.0)]
    curves = dict.fromkeys(("loss", "val_loss", "val_accuracy"), points)
    pictures.training_curves(tmp_path / "c.png", curves, "judge_offset")
    panels = {axis.get_title(loc="left"): len(axis.lines) for axis in drawn[0].axes}
    assert panels == {"loss": 2, "val_accuracy": 1}


def names_in(points: Sequence[Point], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that stand in the figure."""
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.append(figure))
    pictures.quality_and_sync("q.png", points, "t")
    return [text.get_text() for text in drawn[0].axes[0].texts]


def test_points_that_coincide_share_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(label: str, fad: float) -> Point:
        return Point(label=label, group=label, fad=Measured(value=fad), desync=Measured(value=0.5))

    assert sorted(names_in([at("a", 1.0), at("b", 2.0), at("c", 1.0)], monkeypatch)) == ["a\nc", "b"]
    crowd = [at(f"n{number}", 1.0) for number in range(5)]
    found = names_in([*crowd, at("SpecMaskFoley", 1.001), at("z", 3.0)], monkeypatch)
    assert sorted(found) == ["SpecMaskFoley\nn0\nn1\nand 3 more", "z"]


def test_wrong_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decibels is empty"):
        pictures.spectrograms(tmp_path / "a.png", {}, [], 1.0, "t")
    with pytest.raises(ValueError, match=r"decibels\['x'\] has shape \(3,\)"):
        pictures.spectrograms(tmp_path / "a.png", {"x": np.zeros(3)}, [], 1.0, "t")
    with pytest.raises(ValueError, match="curves is empty"):
        pictures.training_curves(tmp_path / "a.png", {}, "t")
    with pytest.raises(ValueError, match="points is empty"):
        pictures.quality_and_sync(tmp_path / "a.png", [], "t")
    with pytest.raises(ValueError, match="curves is empty"):
        pictures.scores_against_steps(tmp_path / "a.png", {"FAD": {}}, "t")
    assert not list(tmp_path.iterdir())
