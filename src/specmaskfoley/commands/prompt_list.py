"""Words for many videos: a table with a row for each sound, and texts that lie beside videos."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from specmaskfoley.foley.prompts import Prompt, Text, parse_texts

COLUMNS = ("video", "text", "negative", "like", "seed", "duration")
_DELIMITERS = ",;\t"
_LARGEST_TEXT = 10_000
"""Bytes of a text beside a video; what is larger is no prompt."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a row of a table says; None or an empty text: nothing.

    number: as spreadsheets count, the header is 1.
    problem: why it cannot be used.
    asks_text: whether the table has a column for texts, which this row leaves empty.
    """

    number: int
    video: Path | None = None
    text: Text = ""
    negative: str = ""
    like: Path | None = None
    seed: int | None = None
    duration_s: float | None = None
    asks_text: bool = False
    problem: str = ""


def read_rows(path: Path) -> list[Row]:
    """A table whose header names its columns, some of `COLUMNS`; commas, semicolons or tabs between them.

    Paths in it count from its folder. Empty rows are left out.

    Raises:
        ValueError: there is no such file, its header is wrong, or it has no rows.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"--prompts {path}: {error.strerror}") from None
    if b"\0" in data:
        raise ValueError(f"--prompts {path}: not a table of UTF-8 text; save it as CSV with UTF-8")
    text = data.decode("utf-8-sig", "surrogateescape")  # a row that is not UTF-8 is that row's problem
    lines = _lines(text, max(_DELIMITERS, key=lambda delimiter: _known(text, delimiter)))
    _, header, problem = next(lines, (1, [], ""))
    names = [cell.strip().lower() for cell in header]
    while names and not names[-1]:
        names.pop()
    wrong = [repr(name) for name in dict.fromkeys(names) if name not in COLUMNS or names.count(name) > 1]
    if wrong or not names:
        found = f"its first row has {', '.join(wrong)}" if wrong else f"its first row {problem or 'is empty'}"
        raise ValueError(f"--prompts {path}: {found}; the first row names columns once each: {', '.join(COLUMNS)}")
    rows = [
        Row(number=number, problem=problem) if problem else _row(number, names, cells, path.parent)
        for number, cells, problem in lines
        if problem or any(cell.strip() for cell in cells)
    ]
    if not rows:
        raise ValueError(f"--prompts {path}: there are no rows below the header")
    return rows


def text_beside(video: Path) -> tuple[Text, str]:
    """What `clip.txt` beside `clip.mp4` says is heard: its first line with words, or parts, one a line.

    Returns:
        The text, empty where there is none; and a sentence about it, empty where there is no such file.
    """
    path = video.with_suffix(".txt")
    try:
        if not path.is_file():
            return "", ""
        if path.stat().st_size > _LARGEST_TEXT:
            return "", f"{path.name} is larger than {_LARGEST_TEXT // 1000} kB, and so not its text"
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        lines = [line for line in lines if any(letter.isalpha() for letter in line)]
        if not lines:
            return "", f"{path.name} has no words, and so is not its text"
        text = parse_texts(lines[:1])
        if not isinstance(text, str):
            text = parse_texts(lines)
        Prompt.of(text)
    except UnicodeDecodeError:
        return "", f"{path.name} is not UTF-8, and so not its text"
    except OSError as error:
        return "", f"{path.name} cannot be read: {error.strerror}"
    except ValueError as error:
        return "", f"{path.name} is not its text: {str(error).removeprefix('--')}"
    return text, f"its text is that of {path.name}: {'; '.join(Prompt.of(text).texts)}"


def _known(text: str, delimiter: str) -> int:
    """How many columns the first row has with this delimiter that are known."""
    _, header, _ = next(_lines(text, delimiter), (1, [], ""))
    return sum(cell.strip().lower() in COLUMNS for cell in header)


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Number, cells and what is wrong of each row, empty ones too."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    number, lines = 0, 0
    while True:
        number += 1
        try:
            yield number, next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            more = f"; it takes {reader.line_num - lines} lines" if reader.line_num > lines + 1 else ""
            yield number, [], f"cannot be read: {error}{more}"
        lines = reader.line_num


def _row(number: int, names: list[str], cells: list[str], home: Path) -> Row:
    try:
        for cell in cells:
            cell.encode()
    except UnicodeEncodeError:
        return Row(number=number, problem="is not UTF-8; save the table as CSV with UTF-8")
    cells = [cell.strip() for cell in cells]
    if any(cells[len(names) :]):
        return Row(number=number, problem=f"has {len(cells)} cells for {len(names)} columns; quote cells with commas")
    said = dict(zip(names, cells, strict=False))
    try:
        text = parse_texts([said.get("text", "")])
        return Row(
            number=number,
            video=_file(said.get("video", ""), home),
            text=text,
            negative=said.get("negative", ""),
            like=_file(said.get("like", ""), home),
            seed=_seed(said.get("seed", "")),
            duration_s=_duration(said.get("duration", "")),
            asks_text="text" in names and not text,
        )
    except ValueError as error:
        return Row(number=number, problem=str(error).removeprefix("--"))


def _file(cell: str, home: Path) -> Path | None:
    if not cell:
        return None
    path = home / cell
    try:
        if not path.exists():
            raise ValueError(f"{cell}: no such file")
        if not path.is_file():
            raise ValueError(f"{cell}: is a folder; a row is of one file")
    except OSError as error:  # such as a name that is too long
        raise ValueError(f"{cell}: {error.strerror}") from None
    return path


def _seed(cell: str) -> int | None:
    if cell and not (cell.isascii() and cell.isdigit()):
        raise ValueError(f"seed {cell}: expected a whole number from 0 on")
    return int(cell) if cell else None


def _duration(cell: str) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        raise ValueError(f"duration {cell}: expected seconds, such as 2.5") from None
