"""Pieces of the page as HTML; whatever a user wrote is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from specmaskfoley.web.studio import Made, Round

EMPTY = (
    '<div class="empty"><div class="wave" aria-hidden="true">' + "<i></i>" * 24 + "</div>"
    "<p><b>Your sounds appear here.</b></p>"
    "<p>Choose a video, say what is heard, and press <em>Make sound</em>. The takes stand side by side, the one that "
    "fits best first.</p></div>"
)
NO_HISTORY = '<p class="quiet">Nothing yet. Every result of this session is listed here, and can be opened again.</p>'


def takes(shown: Round) -> str:
    """The takes of a round, side by side."""
    cards = "".join(_card(shown, number, made) for number, made in enumerate(shown.made, start=1))
    return (
        f'<div class="round"><h3>{escape(title(shown))}</h3><p class="quiet">{escape(_facts(shown))}</p></div>'
        f'<div class="takes" data-count="{len(shown.made)}">{cards}</div>'
    )


def history(rounds: Sequence[Round], shown: int) -> str:
    """All rounds, the latest first, as buttons."""
    if not rounds:
        return NO_HISTORY
    rows = (
        f'<li><button type="button" data-round="{round.number}" aria-current="{str(round.number == shown).lower()}">'
        f'<span class="number">{round.number}</span><span class="what">{escape(title(round))}</span>'
        f'<span class="quiet">{escape(_facts(round))}</span></button></li>'
        for round in reversed(rounds)
    )
    return f'<ol class="history">{"".join(rows)}</ol>'


def status(message: str, *, kind: str = "quiet", share: float | None = None, left_s: float | None = None) -> str:
    """One line on what goes on.

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


def title(round: Round) -> str:
    text = f"\N{LEFT DOUBLE QUOTATION MARK}{round.wish.text}\N{RIGHT DOUBLE QUOTATION MARK}"
    text = text if round.wish.text else "Picture alone"
    if round.only is None:
        return text
    return f"{text}, {round.only[0]:.2f} to {round.only[1]:.2f} s anew"


def _facts(round: Round) -> str:
    takes = "1 take" if len(round.made) == 1 else f"{len(round.made)} takes"
    origin = f"from take {round.of[1]} of no. {round.of[0]} · " if round.of else ""
    return f"{origin}{takes} · {round.duration_s:.2f} s · seed {round.wish.seed} · {round.wish.steps} steps"


def _card(round: Round, number: int, made: Made) -> str:
    best = '<span class="best">fits best</span>' if number == 1 and len(round.made) > 1 else ""
    only = ""
    if round.only is not None:
        left, width = (100 * part / round.duration_s for part in (round.only[0], round.only[1] - round.only[0]))
        only = f'<span class="made" style="left:{left:.3f}%;width:{width:.3f}%" title="made anew"></span>'
    duration = made.take.duration_s
    return f"""<article class="take" data-take="{number}">
<header><h4>Take {number}</h4>{best}<span class="seed">seed {made.take.seed}</span></header>
<video controls playsinline preload="metadata" src="{_url(made.saved.video)}" data-sound="{_url(made.saved.audio)}"
 aria-label="Take {number}"></video>
<div class="strip" data-duration="{duration:.6f}" title="Click: hear it from here. Drag: choose a part to make anew.">
<img src="{_url(made.picture)}" alt="Spectrogram of take {number}" draggable="false">{only}<span class="part"></span>
<span class="cursor"></span></div>
<div class="axis" aria-hidden="true">{_axis(duration)}</div>
{_scores(made)}
<footer><button type="button" class="choose">Change a part</button><span class="files">
<a href="{_url(made.saved.video)}" download="{made.saved.video.name}">Video</a>
<a href="{_url(made.saved.audio)}" download="{made.saved.audio.name}">Sound</a>
<a href="{_url(made.saved.record)}" download="{made.saved.record.name}"
 title="JSON: all settings, to make it again">Recipe</a>
</span></footer></article>"""


def _scores(made: Made) -> str:
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
