"""The report: one HTML file that opens from disk without a network, and the same table as Markdown."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

from specmaskfoley.storage.files import atomic_path

MAX_BYTES = 15_000_000  # of the file; media of the last clips are left out, and named, beyond it
DOWN, UP = "↓", "↑"

# name in metrics/evaluate.json -> (heading, better direction, decimals, what it says)
METRICS: dict[str, tuple[str, str, int, str]] = {
    "fd": ("FD", DOWN, 2, "Fréchet distance of tagger embeddings: are the sounds distributed as real ones?"),
    "fad": ("FAD", DOWN, 2, "Fréchet distance of audio embeddings, a row a window"),
    "kl": ("KL", DOWN, 3, "divergence of the tagger's classes from those of the true sound, in nats"),
    "ib": ("IB", UP, 3, "cosine of video and sound embeddings: does the sound mean what the picture shows?"),
    "desync": ("DeSync (s)", DOWN, 3, "offset between sound and picture in the eyes of a judge network"),
    "onset_f1": ("Onset F1", UP, 3, "detected sound onsets against the true event times"),
    "clips": ("clips", "", 0, "clips the metrics were computed on"),
    "onset_clips": ("onset clips", "", 0, "of these, clips with discrete events: those of onset F1"),
    "sample_time_s": ("sampling (s)", DOWN, 2, "wall time of sampling, all clips"),
}
COMPARED = ("fd", "fad", "kl", "ib", "desync", "onset_f1")  # columns in which the best system is marked

# name in metrics/evaluate.json -> (row heading, what it is); rows that are not generated are never "best"
SYSTEMS: dict[str, tuple[str, str]] = {
    "ground_truth": ("ground truth", "the true sound, compared with itself: the best that can be reached"),
    "codec_roundtrip": ("codec round trip", "the true sound through tokenizer and vocoder: the ceiling here"),
    "specmaskfoley": ("SpecMaskFoley", "the frozen backbone steered by the control branch"),
    "backbone_text": ("backbone, text", "the backbone alone, prompted with the class: knows what, not when"),
    "backbone_audio": ("backbone, audio", "the backbone alone, prompted with the true sound's embedding"),
    "shuffled": ("shuffled video", "SpecMaskFoley's sound beside another clip's video: chance"),
}  # fmt: skip
REFERENCES = ("ground_truth", "codec_roundtrip", "shuffled")

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

Scores = Mapping[str, Mapping[str, float | int | None]]


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
    scores: Scores  # metrics/evaluate.json
    settings: Mapping[str, object] = field(default_factory=dict)
    curves: Sequence[tuple[str, Path]] = ()  # caption, picture
    clips: Sequence[ReportClip] = ()
    notes: Sequence[str] = ()  # what a reader should know: clips set aside, judges used


def write_report(path: str | Path, context: ReportContext, max_bytes: int = MAX_BYTES) -> None:
    """Write the HTML report.

    Raises:
        ValueError: a file has an ending that browsers do not play.
        FileNotFoundError: a picture, sound or video is missing.
    """
    media = _Media(max_bytes)
    curves = "".join(
        f"<figure>{media.image(picture, f'Training curves: {caption}')}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in context.curves
    )
    clips = "".join(_clip(clip, media) for clip in context.clips)
    facts = {"profile": context.profile, "seed": context.seed, **context.settings}
    sections = [
        _section("What was run", _facts(facts) + "".join(f"<p>{escape(note)}</p>" for note in context.notes)),
        _section("Scores", _table(context.scores) + _legend(context.scores)),
        _section(f"Clips ({len(context.clips)})", clips) if clips else "",
        _section("Training", f'<div class="curves">{curves}</div>') if curves else "",
    ]
    text = _PAGE.substitute(title=escape(context.title), style=_STYLE, body="".join(sections))
    _write(path, text)


def write_markdown_table(path: str | Path, scores: Scores) -> None:
    """The score table for a README or a pull request; the best generated system of a column is bold."""
    columns, best = _columns(scores), _best(scores)
    lines = [
        "| system | " + " | ".join(_heading(name) for name in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for system, values in scores.items():
        cells = []
        for name in columns:
            text = _number(name, values.get(name))
            cells.append(f"**{text}**" if system in best.get(name, ()) else text)
        title = SYSTEMS.get(system, (system, ""))[0].replace("|", r"\|")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    _write(path, "\n".join(lines) + "\n")


# ---------------------------------------------------------------------- scores


def _columns(scores: Scores) -> list[str]:
    """Metrics that at least one system has, the known ones first."""
    present = [name for values in scores.values() for name, value in values.items() if value is not None]
    return [name for name in METRICS if name in present] + sorted(set(present) - set(METRICS))


def _best(scores: Scores) -> dict[str, list[str]]:
    best = {}
    for name in COMPARED:
        values = {
            system: value
            for system, row in scores.items()
            if system not in REFERENCES and (value := row.get(name)) is not None and math.isfinite(value)
        }
        if len(values) > 1:
            choose = min if METRICS[name][1] == DOWN else max
            winner = choose(values.values())
            best[name] = [system for system, value in values.items() if value == winner]
    return best


def _heading(name: str) -> str:
    title, direction, *_ = METRICS.get(name, (name, ""))
    return f"{title} {direction}".strip()


def _number(name: str, value: float | int | None) -> str:
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{METRICS[name][2]}f}" if name in METRICS else f"{value:.4g}"


def _table(scores: Scores) -> str:
    columns, best = _columns(scores), _best(scores)
    head = "".join(f'<th scope="col">{escape(_heading(name))}</th>' for name in columns)
    rows = []
    for system, values in scores.items():
        cells = []
        for name in columns:
            text = escape(_number(name, values.get(name)))
            mark = system in best.get(name, ())
            cells.append(f'<td class="best"><strong>{text}</strong></td>' if mark else f"<td>{text}</td>")
        kind = ' class="reference"' if system in REFERENCES else ""
        title = escape(SYSTEMS.get(system, (system, ""))[0])
        rows.append(f'<tr{kind}><th scope="row">{title}</th>{"".join(cells)}</tr>')
    return (
        '<div class="wide"><table><caption>↑ higher is better, ↓ lower is better; the best generated system '
        "of a column is marked. Rows in italics are for reference and do not compete.</caption>"
        f'<thead><tr><th scope="col">system</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _legend(scores: Scores) -> str:
    metrics = {_heading(name): METRICS[name][3] for name in _columns(scores) if name in METRICS}
    systems = {SYSTEMS[name][0]: SYSTEMS[name][1] for name in scores if name in SYSTEMS}
    summary = "<summary>What the rows and columns mean</summary>"
    return f"<details>{summary}{_facts(systems)}{_facts(metrics)}</details>"


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


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(item))}</dd>" for key, item in facts.items())
    return f"<dl>{rows}</dl>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _write(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5d646d; --page: #fbfbfa; --card: #ffffff;
  --line: #d9dce0; --mark: #dff0e2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e8ea; --soft: #a3aab3; --page: #16181b;
  --card: #1f2226; --line: #3a3f46; --mark: #1e4429; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 2rem 0 .6rem; font-size: 1.2rem; border-bottom: 1px solid var(--line); }
h3 { margin: 0 0 .6rem; font-size: 1rem; }
small, figcaption, caption, .left-out { color: var(--soft); font-size: .85rem; font-weight: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; padding-top: .4rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child { text-align: left; }
thead th { border-bottom-width: 2px; }
tr.reference { font-style: italic; color: var(--soft); }
td.best { background: var(--mark); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: .8rem; }
summary { cursor: pointer; }
figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: 4px; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .9rem;
  margin-bottom: 1rem; }
.clip { display: grid; grid-template-columns: minmax(14rem, 18rem) 1fr; gap: 1rem; align-items: start; }
.players { display: grid; gap: .6rem; }
audio, video { width: 100%; display: block; }
video { max-height: 11rem; object-fit: contain; background: #000; border-radius: 4px; }
@media (max-width: 44rem) { .clip { grid-template-columns: 1fr; } dl { grid-template-columns: 1fr; } }
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
