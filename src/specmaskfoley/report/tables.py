"""Tables of scores: the files that evaluation writes, as rows with their uncertainty, in HTML and in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from specmaskfoley.report.published import SOURCES, Published

DOWN, UP = "↓", "↑"

# name in metrics/evaluate.json -> (heading, better direction, decimals, what it says)
METRICS: dict[str, tuple[str, str, int, str]] = {
    "fd": ("FD", DOWN, 2, "Fréchet distance of tagger embeddings: are the sounds distributed as real ones?"),
    "fad": ("FAD", DOWN, 2, "Fréchet distance of audio embeddings, a row a window"),
    "kl": ("KL", DOWN, 3, "divergence of the tagger's classes from those of the true sound, in nats"),
    "isc": ("IS", UP, 2, "inception score: does the tagger hear distinct classes, and many of them?"),
    "ib": ("IB", UP, 3, "cosine of video and sound embeddings: does the sound mean what the picture shows? "
                        "Papers print it times 100"),
    "desync": ("DeSync (s)", DOWN, 3, "offset between sound and picture in the eyes of a judge network"),
    "onset_f1": ("Onset F1", UP, 3, "detected sound onsets against the true event times"),
    "clips": ("clips", "", 0, "clips the metrics were computed on"),
    "onset_clips": ("onset clips", "", 0, "of these, clips with discrete events: those of onset F1"),
    "coverage": ("coverage", "", 3, "share of the wanted clips that every system has a usable sound of"),
    "sample_time_s": ("sampling (s)", DOWN, 2, "wall time of sampling and decoding a clip"),
}  # fmt: skip
COMPARED = ("fd", "fad", "kl", "isc", "ib", "desync", "onset_f1")  # columns in which the best system is marked
COUNTS = ("clips", "coverage", "onset_clips")  # stand beside the table where all rows agree

# name in metrics/evaluate.json -> (row heading, what it is); rows that are not generated are never "best"
SYSTEMS: dict[str, tuple[str, str]] = {
    "ground_truth": ("ground truth", "the true sound, compared with itself: the best that can be reached"),
    "codec_roundtrip": ("codec round trip", "the true sound through tokenizer and vocoder: the ceiling here"),
    "specmaskfoley": ("SpecMaskFoley", "the frozen backbone steered by the control branch"),
    "backbone_text": ("backbone, text", "the backbone alone, prompted with the class: knows what, not when"),
    "backbone_audio": ("backbone, audio", "the backbone alone, prompted with the true sound's embedding"),
    "shuffled": ("shuffled video", "SpecMaskFoley's sound beside another clip's video: chance"),
}  # fmt: skip
OURS = "specmaskfoley"
REFERENCES = ("ground_truth", "codec_roundtrip", "shuffled")

# field of Published -> (heading, better direction)
PRINTED: dict[str, tuple[str, str]] = {
    "fd": ("FD", DOWN),
    "fad": ("FAD", DOWN),
    "kl": ("KL", DOWN),
    "ib": ("IB \u00d7 100", UP),
    "desync": ("DeSync (s)", DOWN),
    "time_s": ("time (s)", ""),
    "parameters": ("parameters", ""),
}

Row = Mapping[str, float | int | None]
Scores = Mapping[str, Row]


# ---------------------------------------------------------------------- what evaluation writes


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(_Written):
    """95 % bootstrap interval over clips; sd over takes, None where there is one."""

    low: float
    high: float
    sd: float | None = None


class Subset(_Written):
    """Scores on some of the clips."""

    clips: int
    hash: str
    scores: dict[str, dict[str, float | None]] = {}


class ScoredClips(_Written):
    """Which clips the numbers are of: metrics/clips.json."""

    clips: int
    hash: str
    coverage: float | None = None
    takes: int = 1
    duration_s: float | None = None
    excluded: dict[str, str] = {}  # clip -> where and why it is not scored
    noted: dict[str, str] = {}  # clip -> what is odd about it, although it is scored
    subsets: dict[str, Subset] = {}


Intervals = Mapping[str, Mapping[str, Interval]]


class Evaluation(_Written):
    """metrics/evaluate.json and what stands beside it; only the scores are always there."""

    scores: dict[str, dict[str, float | int | None]]
    intervals: dict[str, dict[str, Interval]] = {}
    clips: ScoredClips | None = None


class OtherSystems(_Written):
    """metrics/systems/*.json: other systems' sounds, by `specmaskfoley evaluate`."""

    systems: dict[str, dict[str, float | int | None]]
    reference: dict[str, float | int | None] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    clips: ScoredClips | None = None
    profile: str
    judges: str
    as_published: bool = False


def read_evaluation(text_of: Callable[[str], str | None], where: str) -> Evaluation:
    """The evaluation whose files `text_of` gives by name; None for a file that is not there.

    Raises:
        ValueError: evaluate.json is missing, or a file is not what evaluation writes.
    """
    found = {}
    for name in ("evaluate", "intervals", "clips"):
        if (text := text_of(f"{name}.json")) is not None:
            try:
                found["scores" if name == "evaluate" else name] = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}/{name}.json: not valid JSON: {error}") from None
    if "scores" not in found:
        raise ValueError(f"{where}/evaluate.json: no such file; it is written by dvc repro")
    try:
        return Evaluation.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{where}: {_first(error)}; written by another version?") from None


def read_other_systems(path: Path) -> OtherSystems:
    """
    Raises:
        ValueError: the file is not what `specmaskfoley evaluate` writes.
    """
    try:
        return OtherSystems.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}; expected what specmaskfoley evaluate --out writes") from None


def _first(error: ValidationError) -> str:
    what = error.errors()[0]
    return f"{'.'.join(str(part) for part in what['loc'])}: {what['msg']}".removeprefix(": ")


# ---------------------------------------------------------------------- tables


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row to be: a system's scores."""

    title: str
    scores: Row
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    about: str = ""
    competes: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    text: str
    sd: str = ""
    interval: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A finished row; one that does not compete is for reference."""

    title: str
    cells: Sequence[Cell]
    about: str = ""
    competes: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """What HTML and Markdown are made from.

    `better` holds DOWN, UP or "" (no contest) for each column; a folded table is only in the page, closed at first.
    """

    title: str
    columns: Sequence[str]
    better: Sequence[str]
    lines: Sequence[Line]
    first: str = "system"
    notes: Sequence[str] = ()
    legend: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False


def system_entries(scores: Scores, intervals: Intervals) -> list[Entry]:
    """A row a system of one evaluation."""
    return [
        Entry(
            title=SYSTEMS.get(name, (name, ""))[0],
            scores=row,
            intervals=intervals.get(name, {}),
            competes=name not in REFERENCES,
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
) -> Table:
    """Rows under the metrics that at least one of them has; counts on which all agree stand below."""
    present = [name for entry in entries for name, value in entry.scores.items() if value is not None]
    names = [name for name in METRICS if name in present] + sorted(set(present) - set(METRICS))
    counts = {name: {entry.scores.get(name) for entry in entries} - {None} for name in COUNTS if name in names}
    shared = {name: values.pop() for name, values in counts.items() if len(values) == 1}
    names = [name for name in names if name not in shared]
    lines = [
        Line(
            title=entry.title,
            cells=[_cell(name, entry.scores.get(name), entry.intervals.get(name)) for name in names],
            about=entry.about,
            competes=entry.competes,
        )
        for entry in entries
    ]
    notes = [note, _counted(shared, clips)]
    if any(entry.intervals for entry in entries):
        notes.append("In brackets: 95 % bootstrap interval over clips." + _spread(entries))
    systems = {name: about for name, about in SYSTEMS.values() if name in {entry.title for entry in entries}}
    return Table(
        title=title,
        columns=[_heading(name) for name in names],
        better=[METRICS[name][1] if name in COMPARED else "" for name in names],
        lines=lines,
        first=first,
        notes=[note for note in notes if note],
        legend=systems | {_heading(name): METRICS[name][3] for name in names if name in METRICS} if legend else {},
    )


def published_table(title: str, rows: Sequence[Published]) -> Table:
    """Published rows as they were printed, with their sources; marked among themselves only."""
    printed = [(row, [getattr(row, name) or "n/a" for name in PRINTED]) for row in rows]
    return Table(
        title=title,
        columns=[*(f"{heading} {better}".strip() for heading, better in PRINTED.values()), "source"],
        better=[*(better for _, better in PRINTED.values()), ""],
        lines=[
            Line(title=row.system, about=row.method, cells=[Cell(text=text) for text in [*texts, row.source]])
            for row, texts in printed
        ],
        notes=[
            "Published numbers, measured by their authors on their own clips of the test split: not measured here, and "
            "marked among themselves only. FD and KL by PaSST, FAD by VGGish. "
            + "".join(f"{name}: {where}. " for name, where in SOURCES.items()).strip()
        ],
    )


def class_table(title: str, rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> Table:
    """Means a class of one system's scores a clip.

    Args:
        rows: a clip each, with its `label` and the named metrics, None where it has none.
    """
    classes: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        classes.setdefault(str(row["label"]), []).append(row)
    lines = []
    for label, members in sorted(classes.items()):
        cells = [Cell(text=str(len(members)))]
        for name in names:
            values = [value for member in members if isinstance(value := member[name], float)]
            cells.append(_cell(name, sum(values) / len(values) if values else None, None))
        lines.append(Line(title=label, cells=cells))
    columns = ["clips", *(_heading(name) for name in names)]
    return Table(title=title, columns=columns, better=[""] * len(columns), lines=lines, first="class", folded=True)


def markdown_table(scores: Scores) -> str:
    """Scores of systems, without a title; the best generated system of a column is bold."""
    return "\n".join(_markdown_lines(score_table("", system_entries(scores, {}))))


def _cell(name: str, value: float | int | None, interval: Interval | None) -> Cell:
    if value is None or interval is None or name not in COMPARED:
        return Cell(text=_number(name, value))
    return Cell(
        text=_number(name, value),
        sd="" if interval.sd is None else _number(name, interval.sd),
        interval=f"[{_number(name, interval.low)}, {_number(name, interval.high)}]",
    )


def _number(name: str, value: float | int | None) -> str:
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{METRICS[name][2]}f}" if name in METRICS else f"{value:.4g}"


def _heading(name: str) -> str:
    title, direction, *_ = METRICS.get(name, (name, ""))
    return f"{title} {direction}".strip()


def _counted(shared: Mapping[str, float | int | None], clips: ScoredClips | None) -> str:
    """`72 clips (54 with onsets), 100 % of those wanted; list 0123456789abcdef; 5 s each; 3 takes`."""
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


# ---------------------------------------------------------------------- in HTML and Markdown


def marks(table: Table) -> dict[tuple[int, int], str]:
    """(line, column) -> "best" or "second", judged as printed; a second only where it is not also the last."""
    found: dict[tuple[int, int], str] = {}
    for column, better in enumerate(table.better):
        values = {
            number: value
            for number, line in enumerate(table.lines)
            if line.competes and (value := _value(line.cells[column].text)) is not None
        }
        ranking = sorted(set(values.values()), reverse=better == UP)
        if not better or len(values) < 2:
            continue
        for mark, winner in zip(("best", "second"), ranking if len(values) > 2 else ranking[:1], strict=False):
            found |= {(number, column): mark for number, value in values.items() if value == winner}
    return found


def _value(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:  # n/a
        return None
    return value if math.isfinite(value) else None


def _explanation(table: Table) -> str:
    parts = []
    if any(table.better):
        parts.append("↑ higher is better, ↓ lower is better; best bold, second best underlined.")
    if not all(line.competes for line in table.lines):
        parts.append("Rows in italics are for reference and do not compete.")
    return " ".join([*table.notes, *parts])


def to_html(table: Table) -> str:
    """The table with its caption, and a legend to open."""
    marked = marks(table)
    rows = []
    for number, line in enumerate(table.lines):
        cells = []
        for column, cell in enumerate(line.cells):
            kind = f' class="{marked[number, column]}"' if (number, column) in marked else ""
            cells.append(f"<td{kind}>{_cell_html(cell, marked.get((number, column)))}</td>")
        kind = "" if line.competes else ' class="reference"'
        about = f"<small>{escape(line.about)}</small>" if line.about else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(line.title)}{about}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    legend = facts(table.legend)
    if legend:
        legend = f"<details><summary>What the rows and columns mean</summary>{legend}</details>"
    return (
        '<div class="wide"><table>'
        f'<thead><tr><th scope="col">{escape(table.first)}</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"</table></div><p><small>{escape(_explanation(table))}</small></p>{legend}"
    )


def _cell_html(cell: Cell, mark: str | None) -> str:
    text = escape(cell.text)
    text = {"best": f"<strong>{text}</strong>", "second": f"<u>{text}</u>", None: text}[mark]
    if cell.sd:
        text += f' <span class="sd">± {escape(cell.sd)}</span>'
    if not cell.interval:
        return text
    return f'<span title="95 % interval {escape(cell.interval)}">{text}<small>{escape(cell.interval)}</small></span>'


def to_markdown(table: Table) -> str:
    """The table under a heading, for a README or a pull request."""
    heading = [f"### {table.title}", ""] if table.title else []
    note = _explanation(table)
    return "\n".join([*heading, *_markdown_lines(table), *(["", note] if note else [])]) + "\n"


def _markdown_lines(table: Table) -> list[str]:
    marked = marks(table)
    lines = [
        f"| {_plain(table.first)} | " + " | ".join(_plain(column) for column in table.columns) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for number, line in enumerate(table.lines):
        title = _plain(line.title) if line.competes else f"*{_plain(line.title)}*"
        cells = [title + (f"<br><sub>{_plain(line.about)}</sub>" if line.about else "")]
        for column, cell in enumerate(line.cells):
            text = _plain(cell.text)
            mark = marked.get((number, column))
            text = {"best": f"**{text}**", "second": f"<u>{text}</u>", None: text}[mark]
            text += f" ± {cell.sd}" if cell.sd else ""
            cells.append(text + (f"<br><sub>{cell.interval}</sub>" if cell.interval else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", r"\|").replace("*", r"\*")


def facts(items: Mapping[str, object]) -> str:
    """A list of terms and what is said of them; empty for none."""
    rows = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(item))}</dd>" for key, item in items.items())
    return f"<dl>{rows}</dl>" if rows else ""
