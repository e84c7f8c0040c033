"""Published results on the test split of VGGSound: facts with their sources, printed as their source prints them.

They were measured by their authors on their own clips (of 8 s in MMAudio's table), so they stand in a table of their
own and never compete with what is measured here. Numbers that no source at hand states are empty.

Sources: SpecMaskFoley (arXiv 2505.16195) for its own row, MMAudio (arXiv 2412.15322, Table 1) for the others; FAD and
DeSync of those that SpecMaskFoley's Fig. 1 shows agree with it, and so do the kinds of methods. SpecMaskFoley's Table 2
(forms of guidance) is not here: no source at hand states its numbers.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

SOURCES = {"MMAudio, Table 1": "arXiv 2412.15322", "SpecMaskFoley, Table 1": "arXiv 2505.16195"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One system as printed: FD and KL on PaSST, FAD on VGGish, IB score times 100, DeSync and time in seconds."""

    system: str
    method: str
    fd: str
    fad: str
    kl: str
    ib: str
    desync: str
    time_s: str  # to generate one clip
    parameters: str
    source: str


def read_published() -> list[Published]:
    """The rows of published.csv."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return [Published(**row) for row in csv.DictReader(file)]
