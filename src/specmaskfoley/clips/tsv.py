"""Lists of clips as TSV files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

_SHOWN = 80  # characters of a wrong line


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
    """Number and cells of each line, below the header if there is one. Cells are taken as they are, without the space
    around them: no quoting, any commas. Empty lines are left out.

    Args:
        where: the file, for messages.
        headers: what a first line may be that is a header, which is one that holds any of their names.

    Raises:
        ValueError: the text is empty; or naming the line with another header, or with neither two cells nor as many as
            the header, or as the longest one where there is none.
    """
    # Not splitlines(): a label may hold a form feed or U+2028, which are no line ends here.
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    expected = " or ".join("<TAB>".join(names) for names in headers)
    if not text.strip("\ufeff \t\r\n"):
        raise ValueError(f"{where}:1: expected lines {expected}, found nothing")
    first = [cell.strip().casefold() for cell in lines[0].split("\t")]
    has_header = not set(first).isdisjoint(name for names in headers for name in names)
    if has_header and first not in [list(names) for names in headers]:
        raise ValueError(f"{where}:1: expected the header {expected}, or none; found {lines[0][:_SHOWN]!r}")
    widths = (2, len(first) if has_header else max(map(len, headers)))
    for number, line in list(enumerate(lines, start=1))[has_header:]:
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        if len(cells) not in widths:
            raise ValueError(f"{where}:{number}: expected {expected}, separated by tabs; found {line[:_SHOWN]!r}")
        yield number, cells
