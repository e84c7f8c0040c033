"""Published results on the test split of VGGSound: facts with their sources, printed as their source prints them.

They were measured by their authors on their own clips (of 8 s in MMAudio's table), so they stand in tables of their
own and never compete with what is measured here. Table 1 compares systems: as SpecMaskFoley (arXiv 2505.16195) prints
it, MMAudio's rows of 44.1 kHz as MMAudio (arXiv 2412.15322) does, and PAVAS-L (arXiv 2512.08282), whose table has
MMAudio's own numbers of MMAudio. HunyuanVideo-Foley (arXiv 2508.16930; the table is that of its README) measured all
systems anew, with other results for the same names: a table of its own. Table 2 compares backbone, steps and guidance,
and each of its rows names the settings that it means.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specmaskfoley.report.experiments import Experiment

SOURCES = {
    "SpecMaskFoley": "2505.16195",
    "MMAudio": "2412.15322",
    "PAVAS": "2512.08282",
    "HunyuanVideo-Foley": "2508.16930",
}
"""Papers that print the rows, by their numbers on arXiv."""

APART = "HunyuanVideo-Foley"
"""The source whose numbers compare with each other alone."""

PAPER_SAMPLING = {"cfg.scale": 3.0, "cfg.start": 0.0, "sample.gumbel_temperature": 9.0, "sample.schedule": "cosine"}
"""What all rows of Table 2 have in common, by the names in params.yaml."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row as printed; empty: not stated, "?": not legible in the text at hand.

    Attributes:
        paper: what describes the system, by its number on arXiv; `source` prints the row.
        kind, pretrained: the generative model, and the network that it builds on.
        features: what it sees of the video.
        fd, kl: on PaSST; fad: on VGGish; ib: the IB score, always times 100; desync, time_s: seconds, the latter of
            one clip.
        system, mode, steps: Table 2 alone: the name in `SYSTEMS`, cfg.mode and sample.steps that the row means.
    """

    title: str
    paper: str
    group: str
    kind: str
    pretrained: str
    features: str
    parameters: str
    fd: str
    fad: str
    kl: str
    ib: str
    desync: str
    time_s: str
    source: str
    system: str
    mode: str
    steps: str

    @property
    def about(self) -> str:
        """Method, or settings."""
        if self.steps:
            return f"{self.steps} steps, " + (f"cfg.mode={self.mode}" if self.mode else f"system {self.system}")
        return f"{self.group}; {self.kind}" + (f" on {self.pretrained}" if self.pretrained else "")


def arxiv(number: str) -> str:
    """The page of a paper."""
    return f"https://arxiv.org/abs/{number}"


def published_systems() -> list[Published]:
    """Table 1: systems."""
    return [row for row in _read() if not row.system and row.source != APART]


def published_apart() -> list[Published]:
    """Systems as `APART` measured them."""
    return [row for row in _read() if row.source == APART]


def published_settings() -> list[Published]:
    """Table 2: backbone, steps and guidance."""
    return [row for row in _read() if row.system]


def measured_like(row: Published, experiments: Sequence[Experiment]) -> tuple[Experiment, dict[str, object]] | None:
    """The experiment with the system, mode and steps of a row of Table 2; None if there is none.

    Returns:
        that with the fewest other settings of `PAPER_SAMPLING`, the first of several, and these settings.
    """
    found = []
    for one in experiments:
        mode = row.mode or one.settings.get("cfg.mode")  # the backbone's systems have modes of their own
        same = (one.settings.get("cfg.mode"), str(one.settings.get("sample.steps"))) == (mode, row.steps)
        if same and row.system in one.evaluation.scores:
            settings = {name: one.settings.get(name, value) for name, value in PAPER_SAMPLING.items()}
            found.append((one, {name: value for name, value in settings.items() if value != PAPER_SAMPLING[name]}))
    return min(found, key=lambda pair: len(pair[1]), default=None)


def _read() -> list[Published]:
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return [Published(**row) for row in csv.DictReader(file)]
