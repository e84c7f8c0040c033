"""Which clips are scored: those that every system has a usable sound of, once for all metrics.

The common benchmark script scores each metric on the files that metric happens to get; see `published_pairs`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from specmaskfoley.clips.ledger import ready_hash
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.sound import SoundFacts, examine_sound
from specmaskfoley.processes.isolation import Lost

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")

TOLERANCE_S = 0.25
"""A sound that lacks more than this is of another duration. Whole tokens of 10 s last 9.85 s."""

SILENCE = 1e-4
"""A peak below this (-80 dBFS) is silence."""

_NAMED = 5
_VGGSOUND = re.compile(r"[\w-]{11}_\d{6}")
_CUTS = {30: slice(10, 28), 20: slice(0, 18), 21: slice(1, 19)}
"""Length of a stem -> where av-benchmark finds the id in it: an index before it, a sample's number after it, a Y."""

Facts = Mapping[Path, SoundFacts | Lost]


@dataclass(frozen=True)
class Found:
    """The files of a folder by clip; `trouble` holds the clips that several files claim to be, with these files."""

    files: dict[str, Path]
    trouble: dict[str, str]


@dataclass(frozen=True)
class Agreement:
    """The clips that are scored, and why the others are not.

    Attributes:
        clips: in their order.
        wanted: the number of clips in the reference.
        excluded: clip -> where and why it is not scored; clips that the reference does not have come last.
        noted: scored clip -> what is odd about it.
    """

    clips: tuple[str, ...]
    wanted: int
    excluded: dict[str, str]
    noted: dict[str, str]

    @property
    def coverage(self) -> float:
        return len(self.clips) / self.wanted if self.wanted else 0.0

    @property
    def hash(self) -> str:
        """16 hex digits that identify the list of scored clips; see `ledger.ready_hash`."""
        return ready_hash(self.clips)

    def check(self, least: float) -> None:
        """Make sure that enough clips are scored.

        Raises:
            ValueError: fewer than this share of the wanted clips can be scored, or fewer than two.
        """
        if self.coverage >= least and len(self.clips) >= 2:
            return
        named = "; ".join(f"{clip}: {reason}" for clip, reason in list(self.excluded.items())[:_NAMED])
        more = f"; and {len(self.excluded) - _NAMED} more" if len(self.excluded) > _NAMED else ""
        raise ValueError(
            f"only {len(self.clips)} of {self.wanted} clips ({self.coverage:.1%}) have a usable sound in every system; "
            f"evaluate.min_coverage={least:g} asks for more (and for at least 2 clips). {named}{more}"
        )


def sound_facts(path: Path, until_s: float) -> SoundFacts | Lost:
    """`sound.examine_sound`, or the state and reason of a file that cannot be read."""
    try:
        return examine_sound(path, until_s)
    except MediaError as error:
        return Lost(error.state, str(error))


def find_files(folder: Path, suffixes: Sequence[str], pattern: str = "*", known: Sequence[str] = ()) -> Found:
    """The files of a folder and its subfolders by clip: a file is named after its clip. A sound is taken before the
    video of the same name beside it, since `specmaskfoley generate` writes both.

    Args:
        pattern: only files whose name matches, such as `*.flac`.
        known: the clips of the reference. A longer file name is cut to the VGGSound id inside it, as av-benchmark does,
            if that is one of them.

    Raises:
        ValueError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    by_clip: dict[str, list[Path]] = {}
    clips = frozenset(known)
    for path in sorted(folder.rglob(pattern)):
        inside = path.relative_to(folder)
        if path.suffix.lower() in suffixes and path.is_file() and not any(part[0] == "." for part in inside.parts):
            by_clip.setdefault(clip_of(path.stem, clips), []).append(path)
    if not by_clip:
        raise ValueError(f"{folder}: no file {pattern!r} that ends in {', '.join(suffixes)}")
    by_clip = {clip: _without_its_videos(paths) for clip, paths in by_clip.items()}
    trouble = {
        clip: f"{len(paths)} files of one name ({', '.join(str(path.relative_to(folder)) for path in paths)})"
        for clip, paths in by_clip.items()
        if len(paths) > 1
    }
    return Found({clip: paths[0] for clip, paths in by_clip.items() if clip not in trouble}, trouble)


def _without_its_videos(paths: list[Path]) -> list[Path]:
    sounds = [path for path in paths if path.suffix.lower() in SOUND_SUFFIXES]
    return sounds if len({path.with_suffix("") for path in paths}) == len(sounds) == 1 else paths


def clip_of(stem: str, known: frozenset[str]) -> str:
    """The known clip whose name is in a file name (without ending); otherwise the file name itself."""
    if stem in known or len(stem) not in _CUTS:
        return stem
    inner = stem[_CUTS[len(stem)]]
    return inner if inner in known and _VGGSOUND.fullmatch(inner) else stem


def agree(
    reference: Found,
    videos: Found | None,
    systems: Mapping[str, Sequence[Found]],
    facts: Facts,
    duration_s: float,
    shortest_s: float,
) -> Agreement:
    """The reference's clips that have a usable sound everywhere.

    Unusable are sounds that are missing, ambiguous, unreadable, not finite, or too short: a reference shorter than
    `shortest_s`, a system's sound shorter by more than TOLERANCE_S than its reference (of at most `duration_s`).
    Silent sounds, and those whose duration or sample rate differs from most others in their folder, are scored and
    noted.

    Args:
        systems: name -> its takes.
        facts: of every file in `reference` and `systems`.
    """
    wanted = sorted({*reference.files, *reference.trouble})
    excluded: dict[str, str] = {}
    unknown: dict[str, str] = {}
    noted: dict[str, str] = {}
    least = dict.fromkeys(wanted, shortest_s)
    for side, takes in {"reference": [reference], **systems}.items():
        for number, found in enumerate(takes):
            where = side if len(takes) == 1 else f"{side}, take {number}"
            usual = _usual(found, facts)
            for clip in wanted:
                if clip not in found.files:
                    _note(excluded, clip, where, found.trouble.get(clip, "no sound of this name"))
                    continue
                fact = facts[found.files[clip]]
                if reason := _unusable(fact, least[clip]):
                    _note(excluded, clip, where, reason)
                elif isinstance(fact, SoundFacts) and (odd := _odd(fact, usual)):
                    _note(noted, clip, where, odd)
            for clip in sorted({*found.files, *found.trouble} - set(wanted)):
                _note(unknown, clip, where, "the reference has no such clip")
        if side == "reference":
            for clip, path in reference.files.items():
                if isinstance(fact := facts[path], SoundFacts):
                    least[clip] = min(duration_s, fact.duration_s) - TOLERANCE_S
    if videos is not None:
        for clip in wanted:
            if clip not in videos.files:
                _note(excluded, clip, "videos", videos.trouble.get(clip, "no video of this name"))
    scored = tuple(clip for clip in wanted if clip not in excluded)
    noted = {clip: what for clip, what in noted.items() if clip not in excluded}
    return Agreement(scored, len(wanted), excluded | unknown, noted)


def _unusable(fact: SoundFacts | Lost, least_s: float) -> str:
    if isinstance(fact, Lost):
        return f"{fact.state}: {fact.reason}"
    if not fact.finite:
        return "holds NaN or infinite samples"
    if fact.duration_s < least_s:
        return f"lasts {fact.duration_s:.2f} s, at least {least_s:.2f} s are needed"
    return ""


def _odd(fact: SoundFacts, usual: SoundFacts) -> str:
    odd = []
    if fact.peak < SILENCE:
        odd.append("silent")
    if abs(fact.duration_s - usual.duration_s) > TOLERANCE_S:
        odd.append(f"lasts {fact.duration_s:.2f} s, most others {usual.duration_s:.2f} s")
    if fact.sample_rate != usual.sample_rate:
        odd.append(f"{fact.sample_rate} Hz, most others {usual.sample_rate} Hz")
    return ", ".join(odd)


def _usual(found: Found, facts: Facts) -> SoundFacts:
    """The median duration and the most frequent sample rate of a folder."""
    known = [fact for path in found.files.values() if isinstance(fact := facts[path], SoundFacts)]
    if not known:
        return SoundFacts(0.0, 0, 0.0, True)
    rate = Counter(fact.sample_rate for fact in known).most_common(1)[0][0]
    return SoundFacts(median(fact.duration_s for fact in known), rate, 0.0, True)


def _note(notes: dict[str, str], clip: str, where: str, what: str) -> None:
    notes[clip] = f"{notes[clip]}; {where}: {what}" if clip in notes else f"{where}: {what}"
