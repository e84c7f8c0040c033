"""Lists of clips as TSV files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path


def read_text(path: Path, unreadable: str) -> str:
    """
    Raises:
        ValueError: with `unreadable` as its message; or the file is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise ValueError(unreadable) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def tsv_lines(text: str, where: str, *headers: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line below the header, which is one of `headers`. Cells are taken as they are, without
    the space around them: no quoting, any commas. Empty lines are left out.

    Args:
        where: the file, for messages.

    Raises:
        ValueError: naming the line with another header, or neither two cells nor as many as the header.
    """
    # Not splitlines(): a label may hold a form feed or U+2028, which are no line ends here.
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    header = [cell.strip() for cell in lines[0].split("\t")]
    if header not in [list(names) for names in headers]:
        expected = " or ".join("<TAB>".join(names) for names in headers)
        raise ValueError(f"{where}:1: expected the header {expected}, found {lines[0]!r}")
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        if len(cells) not in (2, len(header)):
            raise ValueError(f"{where}:{number}: expected {len(header)} cells separated by tabs, found {len(cells)}")
        yield number, cells
