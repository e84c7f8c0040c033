"""What is to be heard and what is not: words for all of a sound or for parts of it, or another sound to be like."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from specmaskfoley.encoders.features import Prompts
    from specmaskfoley.settings import Sampling

Part = tuple[float, float, str]
"""Seconds, from and to, and what is heard between them."""
Text = str | Sequence[Part]

_PART = re.compile(r"\s*(\d+(?:\.\d*)?)\s*-\s*(\d+(?:\.\d*)?)\s*:(.*)", re.ASCII | re.DOTALL)
_NEXT_PART = re.compile(r"[\n;]\s*(?=\d+(?:\.\d*)?\s*-\s*\d+(?:\.\d*)?\s*:)", re.ASCII)
_MOST_WINDOWS = 8
"""How many stretches of a reference sound are heard, evenly spread over those that are not silent."""
SILENT = 1e-3
"""A peak up to which there is nothing to be like."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is to be heard, and what is not.

    text: for all of the sound; empty: the video alone decides.
    parts: in their order, in place of a text; where there is none, the video alone decides.
    negative: what is not to be heard.
    like: a sound file in place of words.
    """

    text: str = ""
    parts: tuple[Part, ...] = ()
    negative: str = ""
    like: Path | None = None

    @classmethod
    def of(cls, text: Text = "", negative: str = "", like: str | Path | None = None) -> Prompt:
        """
        Raises:
            ValueError: naming the argument that is wrong.
        """
        words, parts = "", list[Part]()
        if isinstance(text, str):
            words = text.strip()
        else:
            parts = sorted((float(begin), float(end), said.strip()) for begin, end, said in text)
        if like is not None and text:
            raise ValueError(f"text={text!r} and like={like}: a prompt is words or a sound; give one of them")
        for begin, end, said in parts:
            if not (math.isfinite(begin) and 0 <= begin < end):
                raise ValueError(f"text {begin:g}-{end:g}: expected seconds from 0 on, the earlier first, as 0-3")
            if not said:
                raise ValueError(f"text {begin:g}-{end:g}: there are no words")
        for (begin, end, _), (later, _, _) in itertools.pairwise(parts):
            if later < end:
                raise ValueError(f"text {begin:g}-{end:g}: the next part begins before its end, at {later:g} s")
        return cls(text=words, parts=tuple(parts), negative=negative.strip(), like=None if like is None else Path(like))

    @property
    def given(self) -> bool:
        """Whether anything is said of what is to be heard."""
        return bool(self.text or self.parts or self.like)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is to be heard, in words."""
        return tuple(dict.fromkeys(words for _, _, words in self.parts)) if self.parts else (self.text,)

    def sampling(self, wanted: Sampling, *, seen: bool) -> Sampling:
        """With the form of guidance for what there is.

        Args:
            seen: whether there is a video.
        """
        if not seen:
            return wanted.changed(mode="text")
        alone = not self.given and wanted.mode != "audio"
        return wanted.changed(mode="no_text_video") if alone else wanted

    def check(self, duration_s: float) -> None:
        """
        Raises:
            ValueError: a part begins where the sound has ended.
        """
        for begin, end, _ in self.parts:
            if begin >= duration_s:
                raise ValueError(f"text {begin:g}-{end:g}: the sound ends at {duration_s:.2f} s")

    def check_ears(self, hears: bool) -> None:
        """
        Args:
            hears: whether the model's encoder of prompts embeds sounds.

        Raises:
            ValueError: it does not, and there is a sound to be like.
        """
        if self.like is not None and not hears:
            raise ValueError(
                f"like={self.like}: this model's prompts are words alone (encoders.prompt.kind), no sounds; say what "
                "is to be heard with --text (text)"
            )

    def columns(self, centres_s: np.ndarray) -> np.ndarray | None:
        """Which of `texts` belongs to each moment, -1: none; None: there are no parts, and the one is for all.

        Raises:
            ValueError: a part lies between two of these moments.
        """
        if not self.parts:
            return None
        at = np.full(centres_s.shape, -1)
        for begin, end, words in self.parts:
            inside = (begin <= centres_s) & (centres_s < end)
            if not inside.any():
                apart = np.diff(centres_s).max(initial=0.0)
                raise ValueError(f"text {begin:g}-{end:g}: too short; the model's tokens are {apart:.2f} s long")
            at[inside] = self.texts.index(words)
        return at


def parse_texts(texts: Sequence[str]) -> Text:
    """`--text` as it was given, once or several times: `rain`, or parts such as `0-3: footsteps`.

    One text may hold several parts, one a line or with semicolons between them.

    Raises:
        ValueError: several, and one is no part.
    """
    texts = [part.strip() for text in texts for part in _NEXT_PART.split(text)]
    found = [_PART.fullmatch(text) for text in texts]
    if len(texts) == 1 and found[0] is None:
        return texts[0]
    for text, part in zip(texts, found, strict=True):
        if part is None:
            raise ValueError(f"--text {text!r}: one of several is for a part, such as '0-3: footsteps'")
    return [(float(part[1]), float(part[2]), part[3].strip()) for part in found if part is not None]


def embed(prompt: Prompt, encoder: Prompts) -> tuple[Tensor, Tensor | None]:
    """Embeddings (Q, *P) of `texts` or of the reference sound, and (*P) of what is not to be heard.

    Raises:
        MediaError: the reference sound cannot be read.
        ValueError: it is silent, or the model's encoder of prompts hears no sounds.
    """
    prompt.check_ears(encoder.hears)
    negative = encoder.text_prompt([prompt.negative])[0].float() if prompt.negative else None
    if prompt.like is None:
        return encoder.text_prompt(prompt.texts).float(), negative
    return _heard(prompt.like, encoder)[None], negative


def _heard(path: Path, encoder: Prompts) -> Tensor:
    """The mean embedding (P,) of a sound file."""
    import torch

    from specmaskfoley.media.sound import examine_track, read_audio

    sound = encoder.prompt_sound
    track = examine_track(path, sound.duration_s)
    windows = [one.number for one in track.windows if one.peak > SILENT and one.finite]
    if not windows:
        why = "is silent" if all(one.finite for one in track.windows) else "holds samples that are no numbers"
        raise ValueError(f"{path}: {why}, and so nothing can be made like it")
    # The rest at the end of a long sound would be mostly silence.
    windows = [number for number in windows if (number + 0.5) * sound.duration_s <= track.end_s] or windows
    chosen = np.unique(np.linspace(0, len(windows) - 1, _MOST_WINDOWS).round().astype(int))
    waves = [
        read_audio(
            path, sample_rate=sound.sample_rate, num_samples=sound.num_samples, peak=sound.peak,
            start_s=windows[index] * sound.duration_s,
        )
        for index in chosen
    ]  # fmt: skip
    mean = encoder.audio_prompt(torch.from_numpy(np.stack(waves))).float().mean(0)
    return torch.nn.functional.normalize(mean, dim=0)
