"""The systems that are compared: the one table of them, and where their sounds lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from specmaskfoley.settings import GuidanceMode, Params, Sampling

OURS, TRUE, SHUFFLED = "specmaskfoley", "ground_truth", "shuffled"


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the comparison.

    Attributes:
        label: for people.
        about: what it is, for people.
        source: where its sounds come from: sampled (a take a sampling seed), decoded from the true tokens (one take),
            or there already (no sounds of its own).
        mode: the form of guidance that it is sampled with, which decides whether it sees the video; None: `cfg.mode`.
    """

    label: str
    about: str
    source: Literal["sampled", "decoded", "there"]
    mode: GuidanceMode | None = None

    @property
    def competes(self) -> bool:
        """Whether it is a generated system. The others are bounds and references, and are never marked as best."""
        return self.source == "sampled"


SYSTEMS = {
    TRUE: System(
        label="ground truth", source="there",
        about="the true sound, compared with itself: the best that can be reached",
    ),
    OURS: System(label="SpecMaskFoley", source="sampled", about="the frozen backbone steered by the control branch"),
    "backbone_text": System(
        label="backbone, text", source="sampled", mode="text",
        about="the backbone alone, prompted with the class: knows what, not when",
    ),
    "backbone_audio": System(
        label="backbone, audio", source="sampled", mode="audio",
        about="the backbone alone, prompted with the true sound's embedding",
    ),
    "codec_roundtrip": System(
        label="codec round trip", source="decoded",
        about="the true sound through tokenizer and vocoder: the ceiling here",
    ),
    SHUFFLED: System(
        label="shuffled video", source="there",
        about="SpecMaskFoley's sound beside another clip's video: chance",
    ),
}  # fmt: skip
"""By the names of their files in metrics/systems."""

MADE_ON = "made_on.json"
"""Beside the sounds: device and precision that they were sampled with."""


def generated(params: Params) -> tuple[str, ...]:
    """The systems that stage sample makes sounds by: those prompted with a sound need an encoder that hears."""
    return tuple(
        name
        for name, system in SYSTEMS.items()
        if system.source != "there" and (system.mode != "audio" or params.encoders.prompt.hears)
    )


def label_of(name: str) -> str:
    """A system's name for people; that of a system from elsewhere is its own."""
    return SYSTEMS[name].label if name in SYSTEMS else name


def takes_of(name: str, params: Params) -> range:
    """The takes of every clip by a system: one a sampling seed, or one where nothing is drawn."""
    return range(params.evaluate.seeds if SYSTEMS[name].source == "sampled" else 1)


def sampling_of(name: str, take: int, params: Params) -> Sampling:
    """How a system's take is drawn: take n with the seed params.seed + n."""
    return params.sampling.changed(seed=params.seed + take, mode=SYSTEMS[name].mode or params.cfg.mode)


def take_folder(params: Params, name: str, take: int) -> Path:
    """Where the sounds of a take lie, `<clip_id>.flac`."""
    return Path(params.paths.samples) / f"take-{take}" / name
