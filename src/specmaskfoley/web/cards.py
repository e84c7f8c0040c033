"""Parts of the page as HTML; whatever a user wrote is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from specmaskfoley.web.studio import Result, SavedTake

EMPTY = (
    '<div class="empty"><div class="wave" aria-hidden="true">' + "<i></i>" * 24 + "</div>"
    "<p><b>Your sounds appear here.</b></p>"
    "<p>Choose a video, say what is heard, and press <em>Make sound</em>. The takes stand side by side, the one that "
    "fits best first.</p></div>"
)
NO_HISTORY = '<p class="quiet">Nothing yet. Every result of this session is listed here, and can be opened again.</p>'


def takes(result: Result) -> str:
    """The takes of a result, side by side."""
    cards = "".join(_card(result, number, one) for number, one in enumerate(result.takes, start=1))
    return (
        f'<div class="result"><h3>{escape(title(result))}</h3><p class="quiet">{escape(_facts(result))}</p></div>'
        f'<div class="takes" data-count="{len(result.takes)}">{cards}</div>'
    )


def history(results: Sequence[Result], shown: int) -> str:
    """All results, the latest first, as buttons."""
    if not results:
        return NO_HISTORY
    rows = (
        f'<li><button type="button" data-result="{one.number}" aria-current="{str(one.number == shown).lower()}">'
        f'<span class="number">{one.number}</span><span class="what">{escape(title(one))}</span>'
        f'<span class="quiet">{escape(_facts(one))}</span></button></li>'
        for one in reversed(results)
    )
    return f'<ol class="history">{"".join(rows)}</ol>'


def status(message: str, *, kind: str = "quiet", share: float | None = None, left_s: float | None = None) -> str:
    """One line about what is going on.

    Args:
        kind: quiet, busy, good or bad.
        share: 0..1 of the work that is done.
    """
    bar = ""
    if share is not None:
        bar = f'<span class="bar"><i style="width:{100 * share:.0f}%"></i></span>'
    left = f'<span class="left">{seconds(left_s)} left</span>' if left_s is not None else ""
    role = "alert" if kind == "bad" else "status"
    return f'<div class="status {kind}" role="{role}"><span class="says">{escape(message)}</span>{left}{bar}</div>'


def seconds(value: float) -> str:
    if value < 60:
        return f"{max(1, round(value))} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def title(result: Result) -> str:
    text = f"\N{LEFT DOUBLE QUOTATION MARK}{result.choices.text}\N{RIGHT DOUBLE QUOTATION MARK}"
    text = text if result.choices.text else "Picture alone"
    return f"{text}, {result.edit.begin:.2f} to {result.edit.end:.2f} s anew" if result.edit else text


def count(takes: Sequence[SavedTake]) -> str:
    return "1 take" if len(takes) == 1 else f"{len(takes)} takes"


def _facts(result: Result) -> str:
    origin = f"from take {result.edit.take} of no. {result.edit.result} · " if result.edit else ""
    sampling = result.choices.sampling
    return f"{origin}{count(result.takes)} · {result.duration_s:.2f} s · seed {sampling.seed} · {sampling.steps} steps"


def _card(result: Result, number: int, made: SavedTake) -> str:
    best = '<span class="best">fits best</span>' if number == 1 and len(result.takes) > 1 else ""
    edited = ""
    if result.edit is not None:
        left, end = (100 * second / result.duration_s for second in (result.edit.begin, result.edit.end))
        edited = f'<span class="made" style="left:{left:.3f}%;width:{end - left:.3f}%" title="made anew"></span>'
    duration = made.take.duration_s
    return f"""<article class="take" data-take="{number}">
<header><h4>Take {number}</h4>{best}<span class="seed">seed {made.take.seed}</span></header>
<video controls playsinline preload="metadata" src="{_url(made.video)}" data-sound="{_url(made.saved.audio)}"
 aria-label="Take {number}"></video>
<div class="strip" data-duration="{duration:.6f}" title="Click: hear it from here. Drag: choose a part to make anew.">
<img src="{_url(made.picture)}" alt="Spectrogram of take {number}" draggable="false">{edited}<span class="part"></span>
<span class="cursor"></span></div>
<div class="axis" aria-hidden="true">{_axis(duration)}</div>
{_scores(made)}
<footer><button type="button" class="choose">Change a part</button><span class="files">
<a href="{_url(made.video)}" download="{made.video.name}">Video</a>
<a href="{_url(made.saved.audio)}" download="{made.saved.audio.name}">Sound</a>
<a href="{_url(made.saved.record)}" download="{made.saved.record.name}"
 title="JSON: all settings, to make it again">Recipe</a>
</span></footer></article>"""


def _scores(made: SavedTake) -> str:
    scores = made.take.scores
    if scores is None:
        return '<p class="quiet scores">Not judged: scores compare several takes.</p>'
    return (
        '<dl class="scores">'
        f'<div title="Distance between what is seen and what is heard"><dt>Off sync</dt>'
        f"<dd>{scores['sync_s']:.2f} s</dd></div>"
        f'<div title="How well the sound means what is seen, -1 to 1"><dt>Meaning</dt>'
        f"<dd>{scores['semantic']:.2f}</dd></div>"
        f'<div title="Meaning less the sync error; orders the takes"><dt>Overall</dt>'
        f"<dd>{scores['overall']:.2f}</dd></div></dl>"
    )


def _axis(duration_s: float) -> str:
    digits = 2 if duration_s < 10 else 1 if duration_s < 60 else 0
    marks = [f"{duration_s * quarter / 4:.{digits}f}" for quarter in range(5)]
    marks[-1] += " s"
    return "".join(f"<span>{mark}</span>" for mark in marks)


def _url(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"
