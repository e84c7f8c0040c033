"""Tables of scores: rows with their uncertainty, the best ones marked, and the same as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from specmaskfoley.metrics import COLUMNS, COUNTS, METRICS, Column, Metric
from specmaskfoley.report.published import SOURCES, Published, arxiv
from specmaskfoley.report.results import Interval, ScoredClips, Scores
from specmaskfoley.systems import SYSTEMS, label_of

PRINTED = ("fd", "fad", "kl", "ib", "desync")
"""The metrics of a published row, fields of `Published`."""

_ABOUT_PUBLISHED = {"time_s": "time (s)", "parameters": "parameters", "features": "video features", "source": "source"}
"""Other fields of it and their headings; a column is there if a row states something."""


Mark = Literal["", "best", "second"]
_MARKS: tuple[Mark, ...] = ("best", "second")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The scores of one system or experiment, before they are printed; one that does not compete is for reference."""

    title: str
    scores: Scores
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    about: str = ""
    competes: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A printed number or word; `mark` says whether it is the best or second best of its column, `link` is a page."""

    text: str
    sd: str = ""
    interval: str = ""
    mark: Mark = ""
    link: str = ""

    @property
    def value(self) -> float | None:
        """What it is sorted by; None for a word, and for n/a."""
        try:
            value = float(self.text)
        except ValueError:
            return None
        return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Line:
    """A printed row.

    Attributes:
        competes: otherwise it is for reference.
        beneath: it belongs to the row above it, and stays there when rows are sorted.
        link: a page about it.
    """

    title: str
    cells: Sequence[Cell]
    about: str = ""
    competes: bool = True
    beneath: bool = False
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """What HTML and Markdown are made from; a folded table is in the page alone, closed at first."""

    title: str
    first: str
    headings: Sequence[str]
    lines: Sequence[Line]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    legend: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False


def system_entries(
    scores: Mapping[str, Scores], intervals: Mapping[str, Mapping[str, Interval]] | None = None
) -> list[Entry]:
    """An entry for each system of one evaluation."""
    return [
        Entry(
            title=label_of(name),
            scores=row,
            intervals=(intervals or {}).get(name, {}),
            competes=name not in SYSTEMS or SYSTEMS[name].competes,
        )
        for name, row in scores.items()
    ]


def score_table(
    title: str,
    entries: Sequence[Entry],
    clips: ScoredClips | None = None,
    *,
    first: str = "system",
    note: str = "",
    legend: bool = True,
    ranked: bool = True,
) -> ScoreTable:
    """A column for every number that at least one entry has; counts on which all agree stand below the table.

    Args:
        ranked: mark the best of each column; of clips that do not tell which that is, none is.
    """
    present = {name for entry in entries for name, value in entry.scores.items() if value is not None}
    counts = {column.name: {entry.scores.get(column.name) for entry in entries} - {None} for column in COUNTS}
    shared = {name: values.pop() for name, values in counts.items() if len(values) == 1}
    columns = [column for name, column in COLUMNS.items() if name in present and name not in shared]
    columns += [Column(name=name, title=name, about="") for name in sorted(present - set(COLUMNS))]
    lines = [
        Line(
            title=entry.title,
            cells=[_cell(column, entry.scores.get(column.name), entry.intervals) for column in columns],
            about=entry.about,
            competes=entry.competes,
        )
        for entry in entries
    ]
    notes = [note, _counted(shared, clips), *([] if clips is None else clips.remarks)]
    if any(entry.intervals for entry in entries):
        notes.append("In brackets: 95 % bootstrap interval over clips." + _spread(entries))
    titles = {entry.title for entry in entries}
    meanings = {system.label: system.about for system in SYSTEMS.values() if system.label in titles}
    meanings |= {column.heading: column.about for column in columns if column.about}
    ranked = ranked and (clips is None or clips.ranked)
    better = [column.better if isinstance(column, Metric) else "" for column in columns]
    return ScoreTable(
        title=title,
        first=first,
        headings=[column.heading for column in columns],
        lines=_marked(lines, better) if ranked else lines,
        warnings=[] if clips is None else clips.warnings,
        notes=[*filter(None, notes), *_how_to_read(lines, better, ranked=ranked)],
        legend=meanings if legend else {},
    )


def published_table(
    title: str, rows: Sequence[Published], measured: Mapping[Published, Entry] | None = None, note: str = ""
) -> ScoreTable:
    """Published rows as they were printed, with their sources; marked among themselves only.

    Args:
        measured: what is shown beneath a row.
    """
    columns = [replace(COLUMNS[name], title="IB \u00d7 100", digits=1) if name == "ib" else COLUMNS[name]
               for name in PRINTED if any(getattr(row, name) for row in rows)]  # fmt: skip
    about = {name: title for name, title in _ABOUT_PUBLISHED.items() if any(getattr(row, name) for row in rows)}
    columns += [Column(name=name, title=title, about="") for name, title in about.items()]
    lines = []
    for row in rows:
        cells = [
            Cell(
                text=getattr(row, column.name) or "-",
                link=arxiv(SOURCES[row.source]) if column.name == "source" else "",
            )
            for column in columns
        ]
        lines.append(Line(title=row.title, about=row.about, cells=cells, link=arxiv(row.paper)))
        if measured and (entry := measured.get(row)):
            lines.append(_beneath(entry, columns))
    better = [column.better for column in columns]
    sources = {row.source for row in rows}
    notes = [
        "Published numbers, measured by their authors on their own clips of the test split: not measured here, and "
        "marked among themselves only. FD and KL by PaSST, FAD by VGGish; time of one clip at batch 1. -: not stated.",
        note,
        *(f"{name}: arXiv {number}." for name, number in SOURCES.items() if name in sources),
        *_how_to_read(lines, better),
    ]
    headings = [column.heading for column in columns]
    return ScoreTable(
        title=title, first="system", headings=headings, lines=_marked(lines, better), notes=[*filter(None, notes)]
    )


def _beneath(entry: Entry, columns: Sequence[Column]) -> Line:
    """Scores of ours in the units of a published table, for reference."""
    cells = []
    for column in columns:
        value = entry.scores.get(column.name) if column.name in PRINTED else None
        value = 100 * value if value is not None and column.name == "ib" else value
        missing = "here" if column.name == "source" else "-"
        cells.append(Cell(text=missing if value is None else _number(column, value)))
    return Line(title=entry.title, about=entry.about, cells=cells, competes=False, beneath=True)


def category_table(system: str, by: str, parts: Mapping[str, Mapping[str, Any]]) -> ScoreTable:
    """One system's scores on parts of the clips, a row each: `clips` and `scores` of all systems."""
    entries = [
        Entry(title=name, scores={**part["scores"][system], "clips": part["clips"]}) for name, part in parts.items()
    ]
    return score_table(f"{label_of(system)}, by {by}", entries, first=by, legend=False, ranked=False)


def class_table(title: str, rows: Sequence[Mapping[str, object]]) -> ScoreTable:
    """One system's scores of single clips, averaged over each class.

    Args:
        rows: a clip each, with its `label` and its metrics, None or absent where it has none.
    """
    columns = [metric for metric in METRICS if any(row.get(metric.name) is not None for row in rows)]
    classes: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        classes.setdefault(str(row["label"]), []).append(row)
    lines = []
    for label, members in sorted(classes.items()):
        cells = [Cell(text=str(len(members)))]
        for column in columns:
            values = [value for member in members if isinstance(value := member.get(column.name), float)]
            cells.append(_cell(column, sum(values) / len(values) if values else None, {}))
        lines.append(Line(title=label, cells=cells))
    headings = ["clips", *(column.heading for column in columns)]
    return ScoreTable(title=title, first="class", headings=headings, lines=lines, folded=True)


def _cell(column: Column, value: float | int | None, intervals: Mapping[str, Interval]) -> Cell:
    interval = intervals.get(column.name)
    if value is None or interval is None or not isinstance(column, Metric):
        return Cell(text=_number(column, value))
    return Cell(
        text=_number(column, value),
        sd="" if interval.sd is None else _number(column, interval.sd),
        interval=f"[{_number(column, interval.low)}, {_number(column, interval.high)}]",
    )


def _number(column: Column, value: float | int | None) -> str:
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if column.digits is None else f"{value:.{column.digits}f}"


def _counted(shared: Mapping[str, float | int | None], clips: ScoredClips | None) -> str:
    """`N = 72 clips (54 with onsets), 100.0 % of those wanted; list 0123456789abcdef; 5 s each; 3 takes.`"""
    count, coverage = shared.get("clips"), shared.get("coverage")
    if clips is not None:
        count, coverage = clips.clips, clips.coverage
    if count is None:
        return ""
    onsets = shared.get("onset_clips")
    parts = [f"N = {count:g} clips" + (f" ({onsets:g} with onsets)" if onsets is not None else "")]
    if coverage is not None:
        parts[0] += f", {100 * coverage:.1f} % of those wanted"
    if clips is not None:
        parts.append(f"list {clips.hash}")
        parts += [f"{clips.duration_s:.4g} s each"] if clips.duration_s is not None else []
        parts.append(f"{clips.takes} takes" if clips.takes > 1 else "one take")
        parts += [f"{len(clips.excluded)} not scored"] if clips.excluded else []
        parts += [f"{len(clips.noted)} scored but odd"] if clips.noted else []
    return "; ".join(parts) + "."


def _spread(entries: Sequence[Entry]) -> str:
    if all(interval.sd is None for entry in entries for interval in entry.intervals.values()):
        return ""
    return " Behind ±: standard deviation over takes (sampling seeds), of which the score is the mean."


def _how_to_read(lines: Sequence[Line], better: Sequence[str], *, ranked: bool = True) -> list[str]:
    notes = []
    if any(better):
        marks = "; best bold, second best underlined" if ranked else ""
        notes.append(f"↑ higher is better, ↓ lower is better{marks}.")
    if not all(line.competes for line in lines):
        notes.append("Rows in italics are for reference and do not compete.")
    return notes


# ---------------------------------------------------------------------- the best


def _marked(lines: Sequence[Line], better: Sequence[str]) -> list[Line]:
    """The lines with the best and second best number of each column marked, judged as printed.

    A second only where it is not also the last; no mark where a single line competes.
    """
    columns = []
    for number, which in enumerate(better):
        values = [line.cells[number].value if which and line.competes else None for line in lines]
        ranking = sorted({value for value in values if value is not None}, reverse=which == "higher")
        count = sum(value is not None for value in values)
        marks: dict[float | None, Mark] = {}
        if count > 1:
            marks |= dict(zip(ranking, _MARKS[: count - 1], strict=False))
        columns.append([marks.get(value, "") for value in values])
    return [
        replace(line, cells=[replace(cell, mark=marks[row]) for cell, marks in zip(line.cells, columns, strict=True)])
        for row, line in enumerate(lines)
    ]


# ---------------------------------------------------------------------- in Markdown


def markdown_scores(scores: Mapping[str, Scores], *, ranked: bool = True) -> str:
    """Scores of systems, without a title; the best generated system of a column is bold, if one is marked."""
    return "\n".join(_markdown_lines(score_table("", system_entries(scores), ranked=ranked)))


def to_markdown(table: ScoreTable) -> str:
    """The table under a heading, for a README or a pull request."""
    note = ["", " ".join(table.notes)] if table.notes else []
    warnings = [line for warning in table.warnings for line in (f"> **Warning:** {warning}", "")]
    return "\n".join([f"### {table.title}", "", *warnings, *_markdown_lines(table), *note]) + "\n"


def _markdown_lines(table: ScoreTable) -> list[str]:
    lines = [
        "| " + " | ".join(_plain(text) for text in (table.first, *table.headings)) + " |",
        "| --- |" + " ---: |" * len(table.headings),
    ]
    for line in table.lines:
        title = _linked(_plain(line.title), line.link)
        title = title if line.competes else f"*{title}*"
        cells = [title + (f"<br><sub>{_plain(line.about)}</sub>" if line.about else "")]
        for cell in line.cells:
            text = _linked(_plain(cell.text), cell.link)
            text = {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[cell.mark]
            text += f" ± {cell.sd}" if cell.sd else ""
            cells.append(text + (f"<br><sub>{cell.interval}</sub>" if cell.interval else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _linked(text: str, link: str) -> str:
    return f"[{text}]({link})" if link else text


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", r"\|").replace("*", r"\*")
