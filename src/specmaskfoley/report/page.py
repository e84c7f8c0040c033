"""The report: one HTML file that opens from disk without a network, and its open tables as Markdown."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from specmaskfoley.report.tables import ScoreTable, to_markdown
from specmaskfoley.storage.files import atomic_path

MAX_BYTES = 15_000_000  # of the file; media of the last clips are left out, and named, beyond it

_PAGE_BYTES = 50_000  # kept free for the page itself
_MEDIA = {
    ".flac": ("audio", "audio/flac"),
    ".wav": ("audio", "audio/wav"),
    ".mp3": ("audio", "audio/mpeg"),
    ".ogg": ("audio", "audio/ogg"),
    ".mp4": ("video", "video/mp4"),
    ".webm": ("video", "video/webm"),
    ".png": ("img", "image/png"),
    ".jpg": ("img", "image/jpeg"),
}


@dataclass(frozen=True, kw_only=True)
class ReportClip:
    """One test clip: what it is, and the files to show. A path that is None is not shown."""

    clip_id: str
    label: str
    picture: Path | None = None  # spectrograms
    sounds: Mapping[str, Path] = field(default_factory=dict)  # caption -> audio file
    elsewhere: Mapping[str, Path] = field(default_factory=dict)  # another experiment -> its FLAC file, by any name
    video: Path | None = None  # with the generated sound


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """Everything the report shows."""

    title: str
    tables: Sequence[ScoreTable]
    settings: Mapping[str, object] = field(default_factory=dict)  # of the scores
    figures: Sequence[tuple[str, Path]] = ()  # caption, picture
    curves: Sequence[tuple[str, Path]] = ()  # caption, picture
    clips: Sequence[ReportClip] = ()
    warning: str = ""  # why the scores are not what they seem
    notes: Sequence[str] = ()  # what a reader should know
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # heading -> name -> why


def write_report(path: str | Path, report: ReportContext, max_bytes: int = MAX_BYTES) -> None:
    """Write the HTML report.

    Raises:
        ValueError: a file has an ending that browsers do not play.
        FileNotFoundError: a picture, sound or video is missing.
    """
    media = _Media(max_bytes - _PAGE_BYTES)
    figures, curves = (
        [media.embedded(picture, caption) for caption, picture in pictures]
        for pictures in (report.figures, report.curves)
    )
    # Clip by clip: who compares wants all that was made of a clip, if of fewer clips.
    clips = [(clip, _files(clip, media), _elsewhere(clip, media)) for clip in report.clips]
    environment = Environment(
        loader=PackageLoader("specmaskfoley", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["anchor"] = _anchor
    script = Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = environment.get_template("report.html.j2").render(
        report=report, style="report.css", script=script, allowed=allowed, figures=figures, curves=curves, clips=clips,
    )  # fmt: skip
    _write(path, page + "\n")


def write_markdown(path: str | Path, report: ReportContext) -> None:
    """The open tables for a README or a pull request, and how many names the page lists besides."""
    parts = [f"> **Warning:** {report.warning}\n"] if report.warning else []
    parts += [to_markdown(table) for table in report.tables if not table.folded]
    parts += [f"{heading}: {len(names)}, named in the page.\n" for heading, names in report.left_out.items()]
    _write(path, "\n".join(parts))


@dataclass(frozen=True)
class _Embedded:
    """A file in the page; `uri` is None where the report was full."""

    path: Path
    tag: str
    uri: str | None
    caption: str
    name: str  # for readers who do not see or hear it


class _Media:
    """Files as data: URIs, until the report is full."""

    def __init__(self, left: int) -> None:
        self._left = left

    def embedded(self, path: Path, caption: str, name: str = "", suffix: str = "") -> _Embedded:
        """Args: suffix: of a file that has none in its name."""
        suffix = suffix or path.suffix.lower()
        if suffix not in _MEDIA:
            raise ValueError(f"{path}: a report shows {', '.join(sorted(_MEDIA))}, not {path.suffix!r}")
        tag, kind = _MEDIA[suffix]
        size = 4 * math.ceil(path.stat().st_size / 3) + 200
        uri = None
        if size <= self._left:
            self._left -= size
            uri = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
        return _Embedded(path, tag, uri, caption, name or caption)


def _files(clip: ReportClip, media: _Media) -> dict[str, object]:
    """The picture and the players of a clip.

    Read in the order in which they matter when the report gets full: a video is the largest and shows the least.
    """
    name = f"{clip.label}, clip {clip.clip_id}"
    picture = media.embedded(clip.picture, "", f"Spectrograms of {name}") if clip.picture is not None else None
    players = [media.embedded(sound, caption, f"{caption}: {name}") for caption, sound in clip.sounds.items()]
    if clip.video is not None:
        caption = "video with generated sound"
        players.insert(0, media.embedded(clip.video, caption, f"{caption}: {name}"))
    return {"picture": picture, "players": players}


def _elsewhere(clip: ReportClip, media: _Media) -> list[_Embedded]:
    """Players of the same clip in other experiments."""
    name = f"{clip.label}, clip {clip.clip_id}"
    return [media.embedded(sound, who, f"{who}: {name}", ".flac") for who, sound in clip.elsewhere.items()]


def _anchor(title: str) -> str:
    """A place in the page by the heading that stands there."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _write(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
