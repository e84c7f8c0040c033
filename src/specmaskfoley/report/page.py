"""The report: one HTML file that opens from disk without a network, and the same table as Markdown."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

from specmaskfoley.report.tables import Table, facts, to_html, to_markdown
from specmaskfoley.storage.files import atomic_path

MAX_BYTES = 15_000_000  # of the file; media of the last clips are left out, and named, beyond it

_MIME = {
    ".flac": "audio/flac",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}


@dataclass(frozen=True, kw_only=True)
class ReportClip:
    """One test clip: what it is, and the files to show. A path that is None is not shown."""

    clip_id: str
    label: str
    picture: Path | None = None  # spectrograms
    sounds: Mapping[str, Path] = field(default_factory=dict)  # caption -> audio file
    video: Path | None = None  # with the generated sound


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """Everything the report shows."""

    title: str
    profile: str
    seed: int
    tables: Sequence[Table]
    settings: Mapping[str, object] = field(default_factory=dict)
    figures: Sequence[tuple[str, Path]] = ()  # caption, picture
    curves: Sequence[tuple[str, Path]] = ()  # caption, picture
    clips: Sequence[ReportClip] = ()
    notes: Sequence[str] = ()  # what a reader should know: judges used, settings that changed
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # heading -> name -> why


def write_report(path: str | Path, context: ReportContext, max_bytes: int = MAX_BYTES) -> None:
    """Write the HTML report.

    Raises:
        ValueError: a file has an ending that browsers do not play.
        FileNotFoundError: a picture, sound or video is missing.
    """
    media = _Media(max_bytes)
    figures, curves = (
        "".join(
            f"<figure>{media.image(picture, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, picture in pictures
        )
        for pictures in (context.figures, context.curves)
    )
    clips = "".join(_clip(clip, media) for clip in context.clips)
    run = {"profile": context.profile, "seed": context.seed, **context.settings}
    folded = [_folded(table.title, to_html(table)) for table in context.tables if table.folded]
    folded += [_folded(f"{heading} ({len(names)})", facts(names)) for heading, names in context.left_out.items()]
    sections = [
        _section("What was run", facts(run) + "".join(f"<p>{escape(note)}</p>" for note in context.notes)),
        *(_section(table.title, to_html(table)) for table in context.tables if not table.folded),
        _section("Figures", f'<div class="figures">{figures}</div>') if figures else "",
        _section("In detail", "".join(folded)) if folded else "",
        _section(f"Clips ({len(context.clips)})", clips) if clips else "",
        _section("Training", f'<div class="curves">{curves}</div>') if curves else "",
    ]
    text = _PAGE.substitute(title=escape(context.title), style=_STYLE, body="".join(sections))
    _write(path, text)


def write_markdown(path: str | Path, context: ReportContext) -> None:
    """The open tables for a README or a pull request, and how much the page says besides."""
    parts = [to_markdown(table) for table in context.tables if not table.folded]
    parts += [f"{heading}: {len(names)}, named in the page.\n" for heading, names in context.left_out.items()]
    _write(path, "\n".join(parts))


# ---------------------------------------------------------------------- pieces


class _Media:
    """Files as data: URIs, until the report is full."""

    def __init__(self, max_bytes: int) -> None:
        self.left = max_bytes - 50_000  # the page itself

    def uri(self, path: Path) -> str | None:
        kind = _MIME.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"{path}: a report shows {', '.join(sorted(_MIME))}, not {path.suffix!r}")
        size = 4 * math.ceil(path.stat().st_size / 3) + 200
        if size > self.left:
            return None
        self.left -= size
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"

    def image(self, path: Path, alt: str) -> str:
        uri = self.uri(path)
        return f'<img src="{uri}" alt="{escape(alt)}">' if uri else _left_out(path)

    def player(self, tag: str, path: Path, name: str) -> str:
        uri = self.uri(path)
        if uri is None:
            return _left_out(path)
        return f'<{tag} controls preload="metadata" src="{uri}" aria-label="{escape(name)}"></{tag}>'


def _left_out(path: Path) -> str:
    return f'<p class="left-out">left out to keep this file small: <code>{escape(str(path))}</code></p>'


def _clip(clip: ReportClip, media: _Media) -> str:
    name = f"{clip.label}, clip {clip.clip_id}"
    # In this order for the case that the report gets full: a video is the largest and shows the least.
    picture = media.image(clip.picture, f"Spectrograms of {name}") if clip.picture is not None else ""
    sounds = "".join(
        f"<figure>{media.player('audio', sound, f'{caption}: {name}')}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, sound in clip.sounds.items()
    )
    video = ""
    if clip.video is not None:
        player = media.player("video", clip.video, f"video with generated sound: {name}")
        video = f"<figure>{player}<figcaption>video with generated sound</figcaption></figure>"
    return (
        f'<article><h3>{escape(clip.label)} <small>{escape(clip.clip_id)}</small></h3><div class="clip">'
        f'<div class="players">{video}{sounds}</div><div class="picture">{picture}</div></div></article>'
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def _write(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5d646d; --page: #fbfbfa; --card: #ffffff;
  --line: #d9dce0; --mark: #dff0e2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e8ea; --soft: #a3aab3; --page: #16181b;
  --card: #1f2226; --line: #3a3f46; --mark: #1e4429; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 2rem 0 .6rem; font-size: 1.2rem; border-bottom: 1px solid var(--line); }
h3 { margin: 0 0 .6rem; font-size: 1rem; }
small, figcaption, .left-out { color: var(--soft); font-size: .85rem; font-weight: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child { text-align: left; }
thead th { border-bottom-width: 2px; }
tr.reference { font-style: italic; color: var(--soft); }
thead th, td, tbody th { vertical-align: top; }
tbody th { font-weight: normal; position: sticky; left: 0; background: var(--page); }
th small { display: block; max-width: 18rem; white-space: normal; overflow-wrap: anywhere; }
td small { display: block; font-size: .75rem; }
td.best { background: var(--mark); }
td u { text-underline-offset: .2em; }
.sd { color: var(--soft); font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: .8rem; }
summary { cursor: pointer; }
figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: 4px; }
.figures { display: grid; gap: 1.5rem; }
.figures img { max-width: 50rem; width: 100%; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .9rem;
  margin-bottom: 1rem; }
.clip { display: grid; grid-template-columns: minmax(14rem, 18rem) 1fr; gap: 1rem; align-items: start; }
.players { display: grid; gap: .6rem; }
audio, video { width: 100%; display: block; }
video { max-height: 11rem; object-fit: contain; background: #000; border-radius: 4px; }
@media (max-width: 44rem) { .clip { grid-template-columns: 1fr; } dl { grid-template-columns: fit-content(45%) 1fr; } }
"""

_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
"""  # noqa: E501
)
