"""The ledger summarised, listed, and compared with another one."""

from __future__ import annotations

import io
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from specmaskfoley.storage.files import atomic_path, sha256_text
from specmaskfoley.storage.tables import LISTED, SPLITS, STATES, USABLE_SCHEMA

UNSTATED = "unstated"
"""Shown in place of a split, a state or a source that is null."""

_NUMBER = r"-?\b(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf)\b"
_KINDS_SHOWN = 3
_CLIPS_SHOWN = 10
_COMPARED = ("split", "state", "reason", "sha256")


def read_ledger(path: str | os.PathLike[str]) -> pa.Table:
    """A ledger, or a table of its ready rows only; columns as in storage.tables.USABLE_SCHEMA, and maybe more.

    Raises:
        ValueError: the file is missing, not Parquet, lacks a column, or holds a clip twice.
    """
    try:
        table: pa.Table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run the earlier stages: dvc repro prepare") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    for field in USABLE_SCHEMA:
        if field.name not in table.schema.names:
            raise ValueError(f"{path}: no column {field.name}; is it a ledger, of this version?")
        if (found := table.schema.field(field.name).type) != field.type:
            raise ValueError(f"{path}: column {field.name} is {found}, not {field.type}; is it a ledger?")
    counts = table.column("clip_id").value_counts()
    if len(counts) < len(table):
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        raise ValueError(f"{path}: the clip {twice} has more than one row; make the ledger again")
    return table


def chosen(table: pa.Table, *, split: str | None = None, states: Sequence[str] = ()) -> pa.Table:
    """The rows of one split, or of all, in any of the states, or in all."""
    if split is not None:
        table = table.filter(pc.equal(table.column("split"), split))
    if states:
        table = table.filter(pc.is_in(table.column("state"), pa.array(states, pa.string())))
    return table


def ready_hash(clip_ids: Iterable[str]) -> str:
    """16 hex digits that identify a set of clips: the start of the sha256 of its sorted ids, each with a line end.

    The same as `LC_ALL=C sort ids.txt | sha256sum | head -c 16`.
    """
    return sha256_text("".join(f"{clip_id}\n" for clip_id in sorted(clip_ids)))[:16]


def summary(table: pa.Table, duration_s: float) -> list[str]:
    """Lines that summarise the table.

    Args:
        duration_s: audio.duration_s, what the model hears of a clip.
    """
    ready = chosen(table, states=["ready"])
    lines = [*_states(table), ""]
    if reasons := _reasons(table):
        lines += ["reasons (one of each kind, for their numbers vary)", *reasons, ""]
    padded = ready.column("padded_s").fill_null(0.0).to_numpy()
    heard_h = (duration_s - padded).clip(min=0.0).sum() / 3600
    is_padded = padded > 0
    how = f" ({_counts(ready.filter(pa.array(is_padded)), 'padding')})" if is_padded.any() else ""
    lines.append(f"usable sound: {heard_h:.2f} h in {len(ready)} ready clips of {duration_s:g} s, less the padding")
    lines.append(f"padded: {is_padded.sum()} ready clips, by {padded.sum():.1f} s together{how}")
    lines.append(f"sources: {_counts(table, 'source')}")
    lines.append(f"decoders: {_counts(table.filter(table.column('decoder').is_valid()), 'decoder')}")
    lines += ["", *_ready_lists({"": table})]
    return lines


def listing(table: pa.Table) -> list[str]:
    """clip_id, split, state and reason of every row, separated by tabs."""
    columns = [table.column(name).to_pylist() for name in ("clip_id", "split", "state", "reason")]
    return ["\t".join(_plain(cell) for cell in row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Comparison:
    """How two ledgers differ in their ready clips.

    Attributes:
        table: the clips that differ, by clip_id: clip_id, difference, and the columns split, state, reason, sha256
            of both, ending in _1 and _2; null where a ledger has no such clip.
        equal: whether the same clips are ready, in the same splits.
        lines: the comparison as text.
    """

    table: pa.Table
    equal: bool
    lines: list[str]


def compare_ledgers(first: pa.Table, second: pa.Table, names: tuple[str, str], split: str | None = None) -> Comparison:
    """Two ledgers side by side.

    Args:
        names: what to call them.
        split: compare the ready clips of this split only.
    """
    both = pd.merge(_narrow(first, "_1"), _narrow(second, "_2"), how="outer", on="clip_id", sort=True)
    ready_1, ready_2 = (
        (both[f"state_{n}"] == "ready") & ((both[f"split_{n}"] == split) if split else True) for n in (1, 2)
    )
    common = ready_1 & ready_2
    moved = common & (both["split_1"].fillna("") != both["split_2"].fillna(""))
    hashed = both["sha256_1"].notna() & both["sha256_2"].notna()
    changed = common & hashed & (both["sha256_1"] != both["sha256_2"])
    unknown = int((common & ~hashed).sum())

    found = {"only_1": ready_1 & ~ready_2, "only_2": ready_2 & ~ready_1, "split": moved, "file": changed}
    titles = {
        "only_1": f"ready in {names[0]} and not in {names[1]}",
        "only_2": f"ready in {names[1]} and not in {names[0]}",
        "split": "ready in both, in different splits",
        "file": "ready in both, with different files (sha256)",
    }
    lines = [*_side_by_side(chosen(first, split=split), chosen(second, split=split), names), ""]
    lines += [*_ready_lists({f"_{n}": chosen(t, split=split) for n, t in ((1, first), (2, second))}), ""]
    for kind, mask in found.items():
        lines.append(f"{titles[kind]}: {mask.sum()}")
        lines += [f"  {_differs(kind, row)}" for row in both[mask].head(_CLIPS_SHOWN).to_dict("records")]
        if mask.sum() > _CLIPS_SHOWN:
            lines.append(f"  and {mask.sum() - _CLIPS_SHOWN} more; --csv FILE writes all")
    if unknown:
        lines.append(f"ready in both, without a sha256 to compare: {unknown}")
    equal = not (found["only_1"].any() or found["only_2"].any() or moved.any())
    lines.append("the ready clips are the same" if equal else "the ready clips differ")

    kinds = pd.Series("", index=both.index)
    for kind, mask in found.items():  # a clip may have another split and another file
        kinds[mask] = (kinds[mask] + " " + kind).str.strip()
    differing = both[kinds != ""].assign(difference=kinds[kinds != ""])
    columns = ["clip_id", "difference", *(f"{name}_{n}" for n in (1, 2) for name in _COMPARED)]
    schema = pa.schema([(name, pa.string()) for name in columns])
    return Comparison(pa.Table.from_pandas(differing[columns], schema, preserve_index=False), equal, lines)


def to_csv(table: pa.Table) -> bytes:
    """CSV with a header; a list of numbers is one cell, parted by spaces. A null is an empty cell, "" a quoted one."""
    for number, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            cells = pc.binary_join(table.column(number).cast(pa.list_(pa.string())), " ")
            table = table.set_column(number, field.name, cells)
    stream = io.BytesIO()
    pa_csv.write_csv(table, stream)
    return stream.getvalue()


def write_csv(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """`to_csv` as a file, whole or not at all."""
    if Path(path).is_dir():
        raise ValueError(f"--csv {path}: a directory; name a file in it, or - for the terminal")
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_csv(table))


def _states(table: pa.Table) -> list[str]:
    counts = _by_state_and_split(table)
    states = _ordered({state for state, _ in counts}, STATES)
    splits = _ordered({split for _, split in counts}, SPLITS)
    rows = [["state", *splits, "all"]]
    for state in states:
        cells = [counts.get((state, split), 0) for split in splits]
        rows.append([state, *map(str, cells), str(sum(cells))])
    totals = [sum(counts.get((state, split), 0) for state in states) for split in splits]
    rows.append(["all", *map(str, totals), str(len(table))])
    return _columns(rows)


def _side_by_side(first: pa.Table, second: pa.Table, names: tuple[str, str]) -> list[str]:
    counts = [_by_state_and_split(table) for table in (first, second)]
    states = _ordered({state for count in counts for state, _ in count}, STATES)
    splits = _ordered({split for count in counts for _, split in count}, SPLITS)
    rows = [["", *(cell for split in splits for cell in (f"{split}_1", f"{split}_2")), "all_1", "all_2"]]
    for state in [*states, "all"]:
        summed = states if state == "all" else [state]
        cells = [[sum(count.get((one, split), 0) for one in summed) for count in counts] for split in splits]
        total = [sum(cell[number] for cell in cells) for number in (0, 1)]
        rows.append([state, *(str(value) for cell in [*cells, total] for value in cell)])
    return [f"1: {names[0]}", f"2: {names[1]}", *_columns(rows)]


def _by_state_and_split(table: pa.Table) -> dict[tuple[str, str], int]:
    counts = table.group_by(["state", "split"]).aggregate([([], "count_all")]).to_pylist()
    return {(row["state"], row["split"] or UNSTATED): row["count_all"] for row in counts}


def _reasons(table: pa.Table) -> list[str]:
    """The most frequent reasons of each state; reasons that differ only in numbers count as one."""
    table = table.filter(pc.not_equal(table.column("reason"), ""))
    if not len(table):
        return []
    kinds = pc.replace_substring_regex(table.column("reason"), _NUMBER, "#")
    frame = pd.DataFrame({name: table.column(name).to_pandas() for name in ("state", "reason")})
    groups = frame.assign(kind=kinds.to_pandas()).groupby(["state", "kind"], sort=True)["reason"]
    found = groups.agg(["size", "first"]).reset_index().sort_values("size", ascending=False, kind="stable")
    rows = []
    for state in _ordered(set(found["state"]), STATES):
        kept = found[found["state"] == state]
        for row in kept.head(_KINDS_SHOWN).to_dict("records"):
            rows.append([state, str(row["size"]), _plain(row["first"])])
        if (more := kept.iloc[_KINDS_SHOWN:])["size"].sum():
            rows.append([state, str(more["size"].sum()), f"of {len(more)} other kinds"])
    return _columns(rows, left=(0, 2))


def _ready_lists(tables: dict[str, pa.Table]) -> list[str]:
    """The ready clips of each split as a number and a hash, by which two data sets can be compared."""
    ids: dict[str, dict[str, list[str]]] = {}
    for end, table in tables.items():
        ready = chosen(table, states=["ready"]).select(["clip_id", "split"])
        for split in ready.column("split").unique().to_pylist():
            column = ready.column("split")
            mask = pc.is_null(column) if split is None else pc.equal(column, split)
            ids.setdefault(split or UNSTATED, {})[end] = ready.filter(mask).column("clip_id").to_pylist()
    rows = [["ready", *(cell for end in tables for cell in (f"clips{end}", f"hash{end}"))]]
    for split in _ordered(set(ids), SPLITS):
        mine = [ids[split].get(end, []) for end in tables]
        rows.append([split, *(cell for clips in mine for cell in (str(len(clips)), ready_hash(clips)))])
    return _columns(rows) if len(rows) > 1 else ["no clip is ready"]


def _narrow(table: pa.Table, end: str) -> pd.DataFrame:
    frame: pd.DataFrame = table.select(["clip_id", *_COMPARED]).to_pandas()
    return frame.rename(columns={name: f"{name}{end}" for name in _COMPARED})


def _differs(kind: str, row: Mapping[Hashable, object]) -> str:
    """One clip that differs, in a line."""
    clip = _plain(row["clip_id"])
    if kind == "file":
        return f"{clip}: {str(row['sha256_1'])[:16]} and {str(row['sha256_2'])[:16]}"
    if kind == "split":
        return f"{clip}: {_plain(row['split_1'])} and {_plain(row['split_2'])}"
    other = "2" if kind == "only_1" else "1"
    if pd.isna(row[f"state_{other}"]):  # type: ignore[call-overload]
        return f"{clip}: no such clip there"
    found = f"{_plain(row[f'state_{other}'])} in {_plain(row[f'split_{other}'])}"
    return f"{clip}: {found}" + (f": {_plain(row[f'reason_{other}'])}" if row[f"reason_{other}"] else "")


def _counts(table: pa.Table, column: str) -> str:
    """`value count, ...`, the most frequent first."""
    counts = table.column(column).value_counts().to_pylist()
    counts.sort(key=lambda row: (-row["counts"], row["values"] or ""))
    return ", ".join(f"{_plain(row['values'])} {row['counts']}" for row in counts) or "none"


def _ordered(found: set[str], known: Sequence[str]) -> list[str]:
    order = [*known, LISTED]
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


def _plain(cell: object) -> str:
    """A cell for one line of a terminal, without the line ends and control characters that a file's name may hold."""
    if cell is None or cell == "":
        return UNSTATED if cell is None else ""
    return "".join(char if char.isprintable() else " " for char in str(cell))


def _columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Rows of cells as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
