"""Parts of the page as HTML; whatever a user wrote is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from specmaskfoley.foley import Saved, Take
from specmaskfoley.foley.knowledge import Knowledge
from specmaskfoley.foley.prompts import Prompt
from specmaskfoley.report.pictures import FLOOR_DB
from specmaskfoley.web.pictures import gradient
from specmaskfoley.web.studio import Result, SavedTake, Upload

EMPTY = (
    '<div class="empty"><div class="wave" aria-hidden="true">' + "<i></i>" * 24 + "</div>"
    "<p><b>Your sounds appear here.</b></p>"
    "<p>Choose a video, say what is heard, and press <em>Make sound</em>. Takes stand side by side, the one that the "
    "judges prefer first. Without a video, the words alone are made into a sound.</p></div>"
)
NO_HISTORY = '<p class="quiet">Nothing yet. Every result of this session is listed here, and can be opened again.</p>'


_SCALE = (
    f'<div class="scale" title="Of all spectrograms; 0 dB is a tone at full scale."><span>{FLOOR_DB:.0f} dB</span>'
    f'<i style="background:{gradient()}"></i><span>0 dB</span></div>'
)
_EXPLAINED = (
    "<p><b>Timing</b>: how far sound and picture seem to be apart, in seconds. At chance, the judges find no moments "
    "that go together.</p><p><b>Meaning</b>: how well the sound fits what is seen, from -1 to 1; compare takes of one "
    "video, not of two.</p><p>The judges are networks of their own, not those that made the sound. They know "
    "videos like those that they were trained on; of others they say little, so trust your ears.</p>"
)
_MANY = 24
"""Words beyond which they are searched, not only seen."""


def head(knowledge: Knowledge) -> str:
    """The name of the page and of the model."""
    return (
        '<header class="head"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8"/>'
        '<path d="M5 17v-2M9 20v-8M13 25V7M17 21V11M21 27V5M25 19v-6M28 17v-2"/></svg>'
        f"<div><h1>SpecMaskFoley</h1><p>Sound for silent video. Model: {escape(knowledge.name)}</p></div></header>"
    )


def examples(videos: Sequence[Upload]) -> str:
    """Videos to try, as buttons."""
    buttons = "".join(
        f'<li><button type="button" data-example="{number}" title="Make sound for this video">'
        f'<img src="{_url(one.poster)}" alt=""><span>{escape(one.name)}</span></button></li>'
        for number, one in enumerate(videos)
    )
    return f'<p class="quiet">No video at hand? Click one to hear it:</p><ol>{buttons}</ol>'


def known(knowledge: Knowledge) -> str:
    """What the model knows, as buttons."""
    words = knowledge.words
    if not words:
        return f'<p class="quiet">Which sounds {escape(knowledge.name)} was trained on is not known.</p>'
    others = " (other texts work, too)" if knowledge.any_text else ""
    sounds = "one sound" if len(words) == 1 else f"{len(words)} sounds"
    search = '<input type="search" placeholder="Search" aria-label="Search the sounds">' if len(words) > _MANY else ""
    chips = "".join(f'<li><button type="button">{escape(word)}</button></li>' for word in words)
    return f'<p class="quiet">Trained on {sounds}{others}:</p>{search}<ol>{chips}</ol>'


def remark(text: str) -> str:
    """What is to be said of a text; nothing where it is empty."""
    return f'<p class="remark" role="status">{escape(_sentence(text))}</p>' if text else ""


def takes(result: Result) -> str:
    """The takes of a result, side by side."""
    cards = "".join(_card(result, number, one) for number, one in enumerate(result.takes, start=1))
    doubt = f'<p class="quiet doubt">{escape(_sentence(result.doubt))}</p>' if result.doubt else ""
    return (
        f'<div class="result"><h3>{escape(title(result))}</h3><p class="quiet">{escape(_facts(result))}</p>{_SCALE}'
        f'{doubt}{remark(result.remark)}</div><div class="takes" data-count="{len(result.takes)}">{cards}</div>'
    )


def done(result: Result) -> str:
    """The status line of a result: green only if there is something to hear in every take."""
    levels = [one.take.level for one in result.takes]
    silent = [str(number) for number, level in enumerate(levels, start=1) if level.nearly_silent]
    made = f"{count(result.takes)} of {result.duration_s:.2f} s"
    if not silent:
        return status(f"Done: {made}.", kind="good")
    if len(silent) < len(levels):
        which = f"take {silent[0]} is" if len(silent) == 1 else f"takes {', '.join(silent)} are"
        return status(f"Done: {made}; {which} nearly silent.", kind="warn")
    loudest = max(levels, key=lambda level: level.loudest_db)
    return status(f"{made[:1].upper()}{made[1:]}, {loudest.sentence}.", kind="warn")


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
        kind: quiet, busy, good, warn or bad.
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
    text = _described(result.choices.prompt)
    return f"{text}, {result.edit.begin:.2f} to {result.edit.end:.2f} s anew" if result.edit else text


def _described(prompt: Prompt) -> str:
    parts = "; ".join(f"{begin:g}-{end:g}: {words}" for begin, end, words in prompt.parts)
    like = "Like the given sound" if prompt.like else "Picture alone"
    heard = _quoted(parts or prompt.text) if parts or prompt.text else like
    return f"{heard}, without {_quoted(prompt.negative)}" if prompt.negative else heard


def _quoted(text: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def count(takes: Sequence[SavedTake]) -> str:
    return "1 take" if len(takes) == 1 else f"{len(takes)} takes"


def _facts(result: Result) -> str:
    origin = f"from take {result.edit.take} of no. {result.edit.result} · " if result.edit else ""
    sampling = result.choices.sampling
    how = f"seed {sampling.seed} · {sampling.first_steps} steps"
    return f"{origin}{count(result.takes)} · {result.duration_s:.2f} s · {how}"


def _card(result: Result, number: int, made: SavedTake) -> str:
    edited = ""
    if result.edit is not None:
        left, end = (100 * second / result.duration_s for second in (result.edit.begin, result.edit.end))
        edited = f'<span class="made" style="left:{left:.3f}%;width:{end - left:.3f}%" title="made anew"></span>'
    take, duration = made.take, made.take.duration_s
    return f"""<article class="take" data-take="{number}">
<header><h4>Take {number}</h4>{_badge(take)}<span class="seed">seed {take.seed}</span></header>
{_player(result, number, made.saved)}
<div class="strip" data-duration="{duration:.6f}" title="Click: hear it from here. Drag: choose a part to make anew.">
<img src="{_url(made.picture)}" alt="Spectrogram of take {number}" draggable="false">{edited}<span class="part"></span>
<span class="cursor"></span></div>
<div class="axis" aria-hidden="true">{_axis(duration)}</div>
{_judged(take)}
<footer><button type="button" class="choose">Change a part</button><span class="files">
{_download(made, made.saved.video, "Video")}
{_download(made, made.saved.audio, "Sound")}
{_download(made, made.saved.record, "Recipe", ' title="JSON: all settings, to make it again"')}
</span></footer></article>"""


def _player(result: Result, number: int, saved: Saved) -> str:
    if result.upload is None or saved.video is None:
        return f'<audio controls preload="metadata" src="{_url(saved.audio)}" aria-label="Take {number}"></audio>'
    return (
        f'<video controls playsinline preload="metadata" poster="{_url(result.upload.poster)}" '
        f'src="{_url(saved.video)}" data-sound="{_url(saved.audio)}" aria-label="Take {number}"></video>'
    )


def _download(made: SavedTake, file: Path | None, called: str, more: str = "") -> str:
    if file is None:
        return ""
    return f'<a href="{_url(file)}" download="{escape(made.name)}{file.suffix}"{more}>{called}</a>'


def _badge(take: Take) -> str:
    if take.level.nearly_silent:
        return '<span class="badge warn">nearly silent</span>'
    return '<span class="badge">fits best</span>' if take.verdict is not None and take.verdict.best else ""


def _judged(take: Take) -> str:
    """What the judges say, in words, with what that means, to open; and the level."""
    kind = "remark" if take.level.nearly_silent else "quiet"
    level = f'<p class="{kind}">{escape(_sentence(take.level.sentence))}</p>'
    verdict = take.verdict
    if verdict is None:
        why = "the judges compare several takes" if take.video is not None else "there is no picture to compare with"
        return f'{level}<p class="quiet">Not judged: {why}.</p>'
    why = f'<p class="why">{escape(_sentence(verdict.why))}</p>' if verdict.why else ""
    return (
        f'<dl class="scores"><div><dt>Timing</dt><dd>{escape(verdict.sync)}</dd></div>'
        f"<div><dt>Meaning</dt><dd>{escape(verdict.meaning)}</dd></div></dl>{why}{level}"
        f"<details><summary>What this means</summary>{_EXPLAINED}"
        f"<p>Both together: {verdict.overall:.2f}. The takes are in the order of this number, those that are nearly "
        "silent last.</p></details>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _axis(duration_s: float) -> str:
    digits = 2 if duration_s < 10 else 1 if duration_s < 60 else 0
    marks = [f"{duration_s * quarter / 4:.{digits}f}" for quarter in range(5)]
    marks[-1] += " s"
    return "".join(f"<span>{mark}</span>" for mark in marks)


def _url(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"
