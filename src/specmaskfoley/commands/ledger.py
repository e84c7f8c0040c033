"""The console command `specmaskfoley ledger`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from specmaskfoley.clips.ledger import chosen, compare_ledgers, listing, read_ledger, summary, to_csv, write_csv
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import SPLITS, STATES


def ledger(
    path: Path | None, other: Path | None, split: str | None, states: Sequence[str], csv: str | None, params_file: Path
) -> tuple[list[str], bool]:
    """Lines for the terminal, and whether the ready clips of compared ledgers are the same.

    Args:
        path: None: the ledger of the settings.
        other: a ledger to compare with.
        csv: a file for the rows in question; -: they are the lines.

    Raises:
        ValueError, OSError: naming the argument or file and what to do.
    """
    for name, values, known in (("split", [] if split is None else [split], SPLITS), ("state", states, STATES)):
        if unknown := [value for value in values if value not in known]:
            raise ValueError(f"--{name} {unknown[0]} is not one of {', '.join(known)}")
    if states and other is not None:
        raise ValueError("--state lists the clips of one ledger; leave it out with --compare")
    lines, table, equal = _lines(path, other, split, states, params_file)
    if csv == "-":
        return [to_csv(table).decode().removesuffix("\n")], equal
    if csv is not None:
        write_csv(table, csv)
        return [*([] if states else [*lines, ""]), f"{len(table)} rows written to {csv}"], equal
    return lines, equal


def _lines(
    path: Path | None, other: Path | None, split: str | None, states: Sequence[str], params_file: Path
) -> tuple[list[str], pa.Table, bool]:
    """Lines, the rows in question, and whether the ready clips are the same."""
    params = Params.load(params_file)
    first = path or params_file.parent / params.paths.ledger
    table = read_ledger(first)
    if other is not None:
        result = compare_ledgers(table, read_ledger(other), (str(first), str(other)), split)
        return result.lines, result.table, result.equal
    table = chosen(table, split=split, states=states)
    return listing(table) if states else summary(table, params.audio.duration_s), table, True
