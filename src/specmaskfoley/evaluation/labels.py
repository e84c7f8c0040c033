"""Tables that say more of the clips of a reference: words for the CLAP score, categories to score apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from specmaskfoley.clips.tsv import read_text

CLIP_COLUMNS = ("clip_id", "id", "name", "key")
"""Columns that name the clip: ours, `data.labels`, av-benchmark's, FoleyBench's."""

WORD_COLUMNS = ("caption", "label")
"""Columns with words for the CLAP score; the first that a table has."""

Labels = Mapping[str, Mapping[str, str]]
"""Clip -> column -> cell."""


def read_labels(path: Path, clips: Sequence[str]) -> Labels:
    """A CSV, or TSV if its name ends so, with a header; rows of other clips than the given ones are left out.

    Raises:
        ValueError: the file cannot be read, has no column that names clips, a row that is too long, names a clip twice,
            or none of the given.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    text = read_text(path, f"--labels {path}: no such file, or it cannot be read").removeprefix("\ufeff")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip() for name in reader.fieldnames or ()]
    clip_column = next((name for name in CLIP_COLUMNS if name in columns), None)
    if clip_column is None:
        raise ValueError(
            f"--labels {path}: expected a header with {', '.join(CLIP_COLUMNS[:-1])} or {CLIP_COLUMNS[-1]}; "
            f"found {', '.join(columns)[:80]!r}"
        )
    reader.fieldnames = columns
    known, found = set(clips), dict[str, dict[str, str]]()
    try:
        for row in reader:
            if None in row:
                raise ValueError(
                    f"--labels {path}:{reader.line_num}: more cells than the header; quote text with commas"
                )
            cells = {name: (row[name] or "").strip() for name in columns}
            clip = cells[clip_column]
            if clip in found:
                raise ValueError(f"--labels {path}:{reader.line_num}: {clip!r} already stands above")
            if clip in known:
                found[clip] = cells
    except csv.Error as error:
        raise ValueError(f"--labels {path}:{reader.line_num}: {error}") from None
    if not found:
        raise ValueError(
            f"--labels {path}: its column {clip_column} names none of the {len(known)} clips that are scored"
        )
    return found


def words(labels: Labels, path: Path | None) -> dict[str, str]:
    """Clip -> its words, "" where the table has none for it.

    Raises:
        ValueError: there is no table, or it has no words.
    """
    if path is None:
        raise ValueError("--extra clap: needs words; give a table of them by --labels")
    columns = next(iter(labels.values()))
    column = next((name for name in WORD_COLUMNS if name in columns), None)
    if column is None or not any(cells[column] for cells in labels.values()):
        raise ValueError(f"--labels {path}: --extra clap needs words in a column {' or '.join(WORD_COLUMNS)}")
    return {clip: cells[column] for clip, cells in labels.items()}


def categories(labels: Labels, column: str, path: Path | None) -> dict[str, frozenset[str]]:
    """Category -> its clips, sorted by name.

    Raises:
        ValueError: there is no table, or it has no such column.
    """
    if path is None:
        raise ValueError(f"--by {column}: needs a table with this column; give it by --labels")
    columns = list(next(iter(labels.values())))
    if column not in columns:
        raise ValueError(f"--by {column}: {path} has the columns {', '.join(columns)}")
    members: dict[str, set[str]] = {}
    for clip, cells in labels.items():
        if cells[column]:
            members.setdefault(cells[column], set()).add(clip)
    return {name: frozenset(members[name]) for name in sorted(members)}
