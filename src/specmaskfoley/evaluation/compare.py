"""The table of systems: every metric of every system on the same clips.

Shape letters: n clips, w DeSync windows, O offset classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from specmaskfoley.evaluation.agreement import Agreement, Found, agree
from specmaskfoley.evaluation.judging import Judging, Listened
from specmaskfoley.evaluation.metrics.frechet import frechet_distance
from specmaskfoley.evaluation.metrics.onsets import onset_f1
from specmaskfoley.evaluation.scoring import Sounds, deviations, intervals, scores, sounds_of
from specmaskfoley.settings import Evaluate

TRUE = "ground_truth"
SHUFFLED = "shuffled"
PER_CLIP = ("kl", "ib", "desync", "onset_f1")

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Entries:
    """What is compared.

    Attributes:
        reference: the true sounds.
        videos: what IB score and DeSync hold sounds against; None: both are left out.
        systems: name -> its takes, files of the same clips by other sampling seeds.
        events: clip -> its true event times in seconds, where they are known.
        events_until_s: no generated sound has events after this time, so that none count.
        seconds_per_clip: name -> sampling time, where it is known.
        shortest_s: a reference that lasts less is not scored.
        shuffled: a system whose sounds are also held against other clips' videos: what chance gives.
    """

    reference: Found
    videos: Found | None
    systems: Mapping[str, Sequence[Found]]
    shortest_s: float
    events: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    events_until_s: float = np.inf
    seconds_per_clip: Mapping[str, float] = field(default_factory=dict)
    shuffled: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What came out; `takes` are the systems' sounds on the clips of `agreement`, by name."""

    agreement: Agreement
    takes: Mapping[str, Sequence[Sounds]]
    seconds_per_clip: Mapping[str, float]
    duration_s: float

    def scores(self) -> Scores:
        """System -> metrics, means over takes, with `clips`, `onset_clips`, `coverage` and `sample_time_s`."""
        found: Scores = {}
        for system, takes in self.takes.items():
            row = scores(takes)
            if "onset_f1" in row:
                row["onset_clips"] = int((~np.isnan(takes[0].per_clip["onset_f1"])).sum())
            row |= {"clips": len(self.agreement.clips), "coverage": self.agreement.coverage}
            if system in self.seconds_per_clip:
                row["sample_time_s"] = self.seconds_per_clip[system]
            found[system] = _rounded(row)
        return found

    def intervals(self, resamples: int, seed: int) -> dict[str, dict[str, dict[str, float | None]]]:
        """System -> metric -> low and high of the 95 % interval over clips, sd over takes (None for a single take)."""
        found: dict[str, dict[str, dict[str, float | None]]] = {}
        for system, takes in self.takes.items():
            deviation = deviations(takes)
            found[system] = {
                name: {**_rounded({"low": low, "high": high}), "sd": _rounded(deviation).get(name)}
                for name, (low, high) in intervals(takes, resamples, seed).items()
            }
        return found

    def summary(self) -> dict[str, Any]:
        """Which clips these numbers are of: count, coverage, hash, takes, seconds heard, what was left out and why."""
        agreement = self.agreement
        return {
            "clips": len(agreement.clips),
            "coverage": agreement.coverage,
            "hash": agreement.hash,
            "takes": max(len(takes) for takes in self.takes.values()),
            "duration_s": round(self.duration_s, 4),
            "excluded": agreement.excluded,
            "noted": agreement.noted,
        }

    def per_clip(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """A row a system and clip: system, clip_id, label, and kl, ib, desync, onset_f1, means over takes."""
        rows = []
        for system, takes in self.takes.items():
            means = {
                name: np.mean([take.per_clip[name] for take in takes], axis=0)
                for name in PER_CLIP
                if name in takes[0].per_clip
            }
            for number, clip in enumerate(self.agreement.clips):
                values = {name: float(array[number]) for name, array in means.items() if not np.isnan(array[number])}
                rows.append({"system": system, "clip_id": clip, "label": labels.get(clip, ""), **values})
        return rows

    def subset(self, clips: frozenset[str]) -> dict[str, Any] | None:
        """Clips, hash and scores on those of the scored clips that are in a set; None if they are fewer than two."""
        rows = np.array([number for number, clip in enumerate(self.agreement.clips) if clip in clips], dtype=np.int64)
        if len(rows) < 2:
            return None
        kept = tuple(self.agreement.clips[number] for number in rows)
        agreement = Agreement(kept, len(kept), {}, {})
        takes = {system: [take.at(rows) for take in takes] for system, takes in self.takes.items()}
        part = Comparison(agreement, takes, {}, self.duration_s)
        return {"clips": len(kept), "hash": agreement.hash, "scores": part.scores()}


def compare(judge: Judging, entries: Entries, settings: Evaluate, seed: int) -> Comparison:
    """Score all systems, the reference among them as `ground_truth`, on the clips that all have.

    Raises:
        ValueError: too few clips have a usable sound in every system; see `Agreement.check`.
    """
    sides = [entries.reference, *(take for takes in entries.systems.values() for take in takes)]
    facts = judge.examine([path for found in sides for path in found.files.values()])
    heard_s = judge.panel.duration_s
    agreement = agree(entries.reference, entries.videos, entries.systems, facts, heard_s, entries.shortest_s)
    agreement.check(settings.min_coverage)
    clips = agreement.clips
    videos = None if entries.videos is None else [entries.videos.files[clip] for clip in clips]
    seen = None if videos is None else judge.watch(videos)
    other = derangement(len(clips), seed)
    against = [] if videos is None else [videos]
    true = judge.listen([entries.reference.files[clip] for clip in clips], against, f"listening to {TRUE}")
    events = [_until(entries.events.get(clip), entries.events_until_s) for clip in clips]

    def beside(heard: Listened, offsets: np.ndarray | None, partners: np.ndarray) -> Sounds:
        """Sounds held against the clips at `partners`."""
        timing = [
            np.nan if not events[place] else onset_f1(events[place], onsets.tolist(), settings.onset_tolerance_s).f1
            for place, onsets in zip(partners, heard.onsets, strict=True)
        ]
        return sounds_of(heard, true, seen, offsets, judge.panel.grid, timing, partners)

    own = np.arange(len(clips))
    takes: dict[str, list[Sounds]] = {TRUE: [beside(true, _first(true.offsets), own)]}
    for system, found in entries.systems.items():
        takes[system] = []
        for number, take in enumerate(found):
            chance = system == entries.shuffled and number == 0
            pairings = [*against, *([[videos[place] for place in other]] if chance and videos is not None else [])]
            name = f"listening to {system}" + (f", take {number}" if len(found) > 1 else "")
            heard = judge.listen([take.files[clip] for clip in clips], pairings, name)
            takes[system].append(beside(heard, _first(heard.offsets), own))
            if chance:
                shuffled = beside(heard, heard.offsets[1] if videos is not None else None, other)
    if entries.shuffled is not None:
        takes[SHUFFLED] = [shuffled]
    return Comparison(agreement, takes, entries.seconds_per_clip, heard_s)


def compare_as_published(judge: Judging, entries: Entries) -> dict[str, dict[str, float]]:
    """The metrics as av-benchmark computes them, each on the files it happens to get.

    FAD compares all sounds of both sides, paired or not; FD, KL, inception score and IB score take the clips that both
    sides have; DeSync leaves out sounds that are shorter than what the judge hears. Files that cannot be read are
    passed over, and no coverage is asked for. `<metric>_clips` says how many each number is of.

    Returns:
        system -> metrics, of its first take.

    Raises:
        ValueError: a system and the reference have fewer than two clips in common.
    """
    sides = [entries.reference, *(takes[0] for takes in entries.systems.values())]
    facts = judge.examine([path for found in sides for path in found.files.values()])
    heard_s = judge.panel.duration_s

    def usable(found: Found) -> dict[str, Path]:
        return {clip: path for clip, path in sorted(found.files.items()) if getattr(facts[path], "finite", False)}

    reference = usable(entries.reference)
    position = {clip: number for number, clip in enumerate(reference)}
    true = judge.listen(list(reference.values()), (), f"listening to {TRUE}")
    results = {}
    for system, takes in entries.systems.items():
        files = usable(takes[0])
        paired = [clip for clip in files if clip in reference]
        if len(paired) < 2:
            raise ValueError(f"{system}: {len(paired)} clips in common with the reference; at least 2 are needed")
        everything = judge.listen(list(files.values()), (), f"listening to {system}")
        rows = np.array([number for number, clip in enumerate(files) if clip in reference])
        partners = np.array([position[clip] for clip in paired])
        row = scores([sounds_of(everything.at(rows), true.at(partners), None, None, judge.panel.grid)])
        row["fad"] = fad(everything, true)
        row |= {"fad_clips": len(files), "kl_clips": len(paired)}
        if entries.videos is not None:
            seen = [clip for clip in paired if clip in entries.videos.files]
            videos = [entries.videos.files[clip] for clip in seen]
            joint = judge.watch(videos)
            heard = judge.listen([files[clip] for clip in seen], [videos], f"listening to {system}")
            here = true.at(np.array([position[clip] for clip in seen]))
            pairs = sounds_of(heard, here, joint, heard.offsets[0], judge.panel.grid)
            # Its reader takes the next file in the place of one that is shorter, if by a sample.
            whole = np.array([facts[files[clip]].duration_s >= heard_s for clip in seen])  # type: ignore[union-attr]
            row |= {"ib": float(pairs.per_clip["ib"].mean()), "ib_clips": len(seen), "desync_clips": int(whole.sum())}
            if whole.any():
                row["desync"] = float(pairs.per_clip["desync"][whole].mean())
        results[system] = _rounded(row)
    return results


def fad(heard: Listened, true: Listened) -> float:
    """FAD of all sounds of two sides, which need not be paired."""
    width = heard.stretches.shape[-1]
    return frechet_distance(heard.stretches.reshape(-1, width), true.stretches.reshape(-1, width))


def derangement(count: int, seed: int) -> np.ndarray:
    """A seeded order in which no clip keeps its place (count 1: itself, there is no other)."""
    order = np.random.default_rng(seed).permutation(count)
    place = np.empty(count, dtype=np.int64)
    # One cycle through a random order: each clip gets its successor.
    place[order] = np.roll(order, -1)
    return place


def _until(events: Sequence[float] | None, end_s: float) -> list[float]:
    return [time for time in events or () if time < end_s]


def _first(offsets: Sequence[np.ndarray]) -> np.ndarray | None:
    return offsets[0] if offsets else None


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    """Six digits: beyond them lies what a network rounds."""
    return {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in row.items()}
