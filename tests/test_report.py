"""The report and its pictures: one file, nothing from outside, nothing lost, safe against odd labels."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specmaskfoley import pictures
from specmaskfoley.storage import report
from specmaskfoley.storage.report import ReportClip, ReportContext

SCORES = {
    "ground_truth": {"fd": 0.0, "ib": 0.5, "onset_f1": 1.0, "clips": 96},
    "codec_roundtrip": {"fd": 1.0, "ib": 0.45, "onset_f1": 0.9, "clips": 96},
    "specmaskfoley": {"fd": 7.125, "ib": 0.31, "onset_f1": 0.6, "clips": 96, "sample_time_s": 12.5},
    "backbone_text": {"fd": 6.5, "ib": 0.31, "onset_f1": None, "clips": 96},
}
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


def context(media: dict[str, Path], **changes: Any) -> ReportContext:
    clip = ReportClip(
        clip_id="test_00001",
        label="ball bouncing on wood",
        picture=media["picture"],
        sounds={"ground truth": media["true"], "generated": media["generated"]},
        video=media["video"],
    )
    values = {
        "title": "SpecMaskFoley: mini", "profile": "mini", "seed": 7, "scores": SCORES,
        "settings": {"cfg.scale": 3.0}, "curves": [("codec", media["picture"])], "clips": [clip],
        "notes": ["3 clips set aside"],
    }  # fmt: skip
    return ReportContext(**(values | changes))


def write(path: Path, what: ReportContext, **options: Any) -> tuple[str, Page]:
    report.write_report(path / "report.html", what, **options)
    text = (path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_report_stands_alone(tmp_path: Path, media: dict[str, Path]) -> None:
    text, page = write(tmp_path, context(media))
    links = [v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href", "poster")]
    assert len(links) == 5
    assert all(link is not None and link.startswith("data:") for link in links)
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
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


def test_the_best_generated_system_is_marked_and_references_never_are(tmp_path: Path, media: dict[str, Path]) -> None:
    text, _ = write(tmp_path, context(media))
    rows = {key: row for key, row in zip(SCORES, re.findall(r"<tr.*?</tr>", text)[1:], strict=True)}
    marked = {key: re.findall(r'class="best"><strong>(.*?)</strong>', row) for key, row in rows.items()}
    assert marked == {
        "ground_truth": [],
        "codec_roundtrip": [],
        "specmaskfoley": ["0.310"],  # a tie in IB; alone in onset F1, which is no contest
        "backbone_text": ["6.50", "0.310"],
    }
    assert "n/a" in rows["backbone_text"]
    assert "FD ↓" in text
    assert "Onset F1 ↑" in text
    assert "DeSync" not in text  # no system has it


def test_odd_labels_do_no_harm(tmp_path: Path, media: dict[str, Path]) -> None:
    odd = '</h3><script>alert("1")</script> "rock & roll" $title'
    clip = ReportClip(clip_id='<b>"', label=odd, picture=media["picture"])
    text, page = write(
        tmp_path,
        context(media, title=odd, clips=[clip], notes=[odd], settings={odd: odd}, scores={odd: {odd: 1.0}}),
    )
    assert not page.all("script")
    assert not page.all("b")
    assert page.text.count(odd) == 8
    assert f'Spectrograms of {odd}, clip <b>"' in [image["alt"] for image in page.all("img")]
    assert "<script" not in text


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


def test_the_markdown_table(tmp_path: Path) -> None:
    report.write_markdown_table(tmp_path / "table.md", SCORES | {"a|b": {"extra": 0.123456, "fd": float("nan")}})
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| system | FD ↓ | IB ↑ | Onset F1 ↑ | clips | sampling (s) ↓ | extra |"
    assert lines[2] == "| ground truth | 0.00 | 0.500 | 1.000 | 96 | n/a | n/a |"
    assert lines[4] == "| SpecMaskFoley | 7.12 | **0.310** | 0.600 | 96 | 12.50 | n/a |"
    assert lines[6] == r"| a\|b | nan | n/a | n/a | n/a | n/a | 0.1235 |"


def test_pictures_are_equal_bytes_for_equal_arrays(tmp_path: Path) -> None:
    mels = {"ground truth": np.random.default_rng(0).normal(size=(80, 100)), "generated": np.zeros((80, 90))}
    curves = {"loss": [(1, 2.0), (2, 1.0)], "cost in $": [(1, 0.1)], "$x": [(2, 3.0)]}
    for name in ("a", "b"):
        pictures.spectrogram_pair(tmp_path / name / "s.png", mels, [0.5], 1.0, "odd $title$ <&>")
        pictures.training_curves(tmp_path / name / "c.png", curves, "train_codec")
    for kind in ("s.png", "c.png"):
        first, second = ((tmp_path / name / kind).read_bytes() for name in ("a", "b"))
        assert first == second
        assert first.startswith(PNG_START)
        assert b"Software" not in first
        assert b"tIME" not in first


def test_an_event_and_the_sound_change_the_picture(tmp_path: Path) -> None:
    silence, sound = np.full((80, 50), -11.5), np.random.default_rng(1).normal(size=(80, 50))
    for name, mel, events in (("a", silence, []), ("b", silence, [0.3]), ("c", sound, [])):
        pictures.spectrogram_pair(tmp_path / f"{name}.png", {"x": mel}, events, 1.0, "t")
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abc"}) == 3


def test_wrong_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mels is empty"):
        pictures.spectrogram_pair(tmp_path / "a.png", {}, [], 1.0, "t")
    with pytest.raises(ValueError, match=r"mels\['x'\] has shape \(3,\)"):
        pictures.spectrogram_pair(tmp_path / "a.png", {"x": np.zeros(3)}, [], 1.0, "t")
    with pytest.raises(ValueError, match="curves is empty"):
        pictures.training_curves(tmp_path / "a.png", {}, "t")
    assert not list(tmp_path.iterdir())
