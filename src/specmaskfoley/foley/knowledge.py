"""What a model knows: the sounds that it was trained on, and what a text has to do with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips

SOUNDS_FILE = "sounds.txt"
"""In an exported folder, which has no table of clips: a sound a line."""

_OPEN = ("clap", "t5")
"""The prompt encoders that were trained on texts of all kinds: a text need not be a label of the clips."""
_STEM = 4
"""Letters that two words must begin with to be alike, and all but one of the shorter: bounce and bouncing."""
_LISTED = 15
"""A model that knows more has examples shown, not all."""
_EMPTY_WORDS = frozenset({"a", "an", "the", "of", "on", "in", "at", "to", "and", "with", "by", "from", "into", "sound"})


@dataclass(frozen=True)
class Knowledge:
    """What a model knows.

    name: of the model, such as `SpecMaskFoley mini`.
    words: the labels of its training clips, sorted; empty where they are not known.
    any_text: whether the texts that it understands go beyond them.
    """

    name: str
    words: tuple[str, ...]
    any_text: bool

    @classmethod
    def of(cls, params: Params, home: Path = Path()) -> Knowledge:
        """Of the model of a project or of an exported folder; paths in `params` count from `home`."""
        return cls(f"SpecMaskFoley {params.profile}", _words(params, home), params.encoders.prompt.kind in _OPEN)

    @property
    def sentence(self) -> str:
        """The model in one line, with what it knows."""
        if not self.words:
            return f"{self.name}; which sounds it was trained on is not known"
        more = "; it takes other texts, too" if self.any_text else ""
        return f"{self.name}; trained on {_count(self.words)}: {_listed(self.words)}{more}"

    def nearest(self, text: str) -> str | None:
        """The label that has the most in common with a text, word by word; None: none has anything.

        By their letters, as the small prompt encoder reads them: what shares none with the labels is noise to it.
        """
        wanted = _split(text)
        scores = {label: _in_common(wanted, _split(label)) for label in self.words}
        best = max(self.words, key=lambda label: scores[label], default=None)
        return best if best is not None and scores[best] > 0 else None

    def remark(self, text: str) -> str:
        """What is to be said of a text; empty where the model knows it, or its labels are not known."""
        if not text.strip() or self.any_text or not self.words:
            return ""
        if any(set(_split(text)) == set(_split(label)) for label in self.words):
            return ""
        nearest = self.nearest(text)
        near = f'; the nearest by its words is "{nearest}"' if nearest else ", and is like none of them"
        return f'"{text}" is not among the {_count(self.words)} that this model was trained on{near}'

    def remarks(self, texts: Iterable[str]) -> str:
        """What is to be said of several texts, in one line."""
        return "; ".join(filter(None, map(self.remark, texts)))

    def facts(self, texts: Iterable[str]) -> dict[str, Any]:
        """For a record of a sound with these texts."""
        remark = self.remarks(texts)
        return {"model": self.name, "sounds": list(self.words), "any_text": self.any_text, "remark": remark}


def _words(params: Params, home: Path) -> tuple[str, ...]:
    usable, exported = home / params.paths.usable, home / SOUNDS_FILE
    if usable.exists():
        labels: Iterable[str] = (row.label for row in ready_clips(usable, "train"))
    else:
        labels = exported.read_text(encoding="utf-8").splitlines() if exported.exists() else ()
    return tuple(sorted({label for label in labels if label.strip()}))


def _count(words: tuple[str, ...]) -> str:
    return f"{len(words)} sounds" if len(words) > 1 else "one sound"


def _listed(words: tuple[str, ...]) -> str:
    if len(words) <= _LISTED:
        return ", ".join(words)
    step = len(words) / _LISTED
    return ", ".join(words[int(step * number)] for number in range(_LISTED)) + ", ..."


def _split(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in _EMPTY_WORDS]


def _in_common(wanted: list[str], words: list[str]) -> float:
    """Twice the words that two texts share, by the words that they have: 0..1."""
    return 2 * sum(any(_alike(one, other) for other in words) for one in wanted) / max(1, len(wanted) + len(words))


def _alike(one: str, other: str) -> bool:
    shared = max(_STEM, min(len(one), len(other)) - 1)
    return one == other or (len(one) >= shared and one[:shared] == other[:shared])
