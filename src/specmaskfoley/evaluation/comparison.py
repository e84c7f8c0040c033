"""The table of systems: every metric of every system on the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from specmaskfoley.evaluation.agreement import Agreement, Found, agree
from specmaskfoley.evaluation.judging import Judging
from specmaskfoley.evaluation.scoring import JudgedTake, deviations, intervals, judged_take, mean_scores
from specmaskfoley.metrics.frechet import FEW_CLIPS, fad_score, small_set
from specmaskfoley.metrics.judged import Listened, Partners
from specmaskfoley.settings import Evaluate
from specmaskfoley.systems import SHUFFLED, TRUE

Scores = dict[str, dict[str, float]]
"""System -> metric or count -> value."""


@dataclass(frozen=True)
class ComparedFiles:
    """The files that are compared.

    Attributes:
        reference: the true sounds.
        videos: what IB score and DeSync compare sounds with; None: both are left out.
        systems: name -> its takes, files of the same clips by other sampling seeds.
        events: clip -> its true event times in seconds, where they are known.
        events_until_s: no generated sound has events after this time, so that none count.
        shortest_s: a reference that lasts less is not scored.
        shuffled: a system whose sounds are also compared with other clips: what chance gives.
    """

    reference: Found
    videos: Found | None
    systems: Mapping[str, Sequence[Found]]
    shortest_s: float
    events: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    events_until_s: float = np.inf
    shuffled: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The judged sounds of every system on the clips of `agreement`, and what follows from them."""

    agreement: Agreement
    takes: Mapping[str, Sequence[JudgedTake]]
    duration_s: float

    def scores(self) -> Scores:
        """System -> metrics, means over takes."""
        return {system: _short(mean_scores(takes)) for system, takes in self.takes.items()}

    def counts(self) -> Scores:
        """System -> `clips` and `coverage` of its metrics, and `onset_clips` where it has onset F1."""
        shared = {"clips": len(self.agreement.clips), "coverage": self.agreement.coverage}
        found: Scores = {}
        for system, takes in self.takes.items():
            onsets = takes[0].per_clip.get("onset_f1")
            found[system] = shared | ({} if onsets is None else {"onset_clips": int((~np.isnan(onsets)).sum())})
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
        """Which clips these numbers are of: count, coverage, hash, takes, seconds heard, what was left out and why, the
        counts of every system; and what has to be said of numbers of so few clips."""
        agreement = self.agreement
        few = few_clips(len(agreement.clips))
        missing, remarks = small_set(self.takes[TRUE][0].heard)
        return {
            "clips": len(agreement.clips),
            "coverage": agreement.coverage,
            "hash": agreement.hash,
            "takes": max(len(takes) for takes in self.takes.values()),
            "duration_s": round(self.duration_s, 4),
            "excluded": agreement.excluded,
            "noted": agreement.noted,
            "counts": self.counts(),
            "warnings": few + missing,
            "remarks": remarks,
            "ranked": not few,
        }

    def per_clip(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """A row a system and clip: system, clip_id, label, and the metrics that a clip has, means over takes."""
        rows = []
        for system, takes in self.takes.items():
            means = {name: np.mean([take.per_clip[name] for take in takes], axis=0) for name in takes[0].per_clip}
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
        part = Comparison(agreement, takes, self.duration_s)
        return {"clips": len(kept), "hash": agreement.hash, "scores": part.scores()}


def compare_systems(judge: Judging, files: ComparedFiles, settings: Evaluate, seed: int) -> Comparison:
    """Score all systems, the true sounds among them as `ground_truth`, on the clips of which all have a usable sound.

    Raises:
        ValueError: too few clips have a usable sound in every system; see `Agreement.check`.
    """
    sides = [files.reference, *(take for takes in files.systems.values() for take in takes)]
    facts = judge.examine([path for found in sides for path in found.files.values()])
    heard_s = judge.panel.duration_s
    agreement = agree(files.reference, files.videos, files.systems, facts, heard_s, files.shortest_s)
    agreement.check(settings.min_coverage)
    clips = agreement.clips
    videos = None if files.videos is None else [files.videos.files[clip] for clip in clips]
    seen = None if videos is None else judge.watch(videos)
    own, other = np.arange(len(clips)), derangement(len(clips), seed)
    pairings = [] if videos is None else [videos]
    crossed = [] if videos is None else [videos, [videos[place] for place in other]]
    true = judge.listen([files.reference.files[clip] for clip in clips], pairings, f"listening to {TRUE}")
    events = [_until(files.events.get(clip), files.events_until_s) for clip in clips]

    def beside(heard: Listened, places: np.ndarray, pairing: int = 0) -> JudgedTake:
        """The sounds, compared with the clips at `places`."""
        partners = Partners(
            logits=true.logits[places],
            seen=None if seen is None else seen[places],
            offsets=heard.offsets[pairing] if heard.offsets else None,
            grid=judge.panel.grid,
            events=[events[place] for place in places],
            tolerance_s=settings.onset_tolerance_s,
        )
        return judged_take(heard, true, partners)

    takes = {TRUE: [beside(true, own)]}
    for system, found in files.systems.items():
        takes[system] = []
        for number, take in enumerate(found):
            chance = system == files.shuffled and number == 0
            name = f"listening to {system}" + (f", take {number}" if len(found) > 1 else "")
            heard = judge.listen([take.files[clip] for clip in clips], crossed if chance else pairings, name)
            takes[system].append(beside(heard, own))
            if chance:
                shuffled = beside(heard, other, 1)
    if files.shuffled is not None:
        takes[SHUFFLED] = [shuffled]
    return Comparison(agreement, takes, heard_s)


def score_as_published(judge: Judging, files: ComparedFiles) -> tuple[Scores, Scores]:
    """The metrics as av-benchmark computes them, each on the files it happens to get.

    FAD compares all sounds of both sides, paired or not; FD, KL, inception score and IB score take the clips that both
    sides have; DeSync leaves out sounds that are shorter than what the judge hears. Files that cannot be read are
    passed over, and no coverage is asked for.

    Returns:
        system -> metrics, of its first take; system -> `<metric>_clips`, how many each number is of.

    Raises:
        ValueError: a system and the reference have fewer than two clips in common.
    """
    sides = [files.reference, *(takes[0] for takes in files.systems.values())]
    facts = judge.examine([path for found in sides for path in found.files.values()])

    def usable(found: Found) -> dict[str, Path]:
        return {clip: path for clip, path in sorted(found.files.items()) if getattr(facts[path], "finite", False)}

    reference = usable(files.reference)
    position = {clip: number for number, clip in enumerate(reference)}
    true = judge.listen(list(reference.values()), (), f"listening to {TRUE}")
    scores: Scores = {}
    counts: Scores = {}
    for system, takes in files.systems.items():
        sounds = usable(takes[0])
        paired = [clip for clip in sounds if clip in reference]
        if len(paired) < 2:
            raise ValueError(f"{system}: {len(paired)} clips in common with the reference; at least 2 are needed")
        everything = judge.listen(list(sounds.values()), (), f"listening to {system}")
        heard = everything.at(np.array([number for number, clip in enumerate(sounds) if clip in reference]))
        here = true.at(np.array([position[clip] for clip in paired]))
        row = dict(judged_take(heard, here, Partners(logits=here.logits)).scores)
        fad = fad_score(everything, true)
        row |= {} if fad is None else {"fad": fad}
        counts[system] = {"fad_clips": len(sounds), "kl_clips": len(paired)}
        if files.videos is not None:
            shown = {clip: files.videos.files[clip] for clip in paired if clip in files.videos.files}
            # Its reader takes the next file in the place of one that is shorter, if by a sample.
            whole = [facts[sounds[clip]].duration_s >= judge.panel.duration_s for clip in shown]  # type: ignore[union-attr]
            seen = judge.watch(list(shown.values()))
            heard = judge.listen([sounds[clip] for clip in shown], [list(shown.values())], f"listening to {system}")
            here = true.at(np.array([position[clip] for clip in shown]))
            partners = Partners(logits=here.logits, seen=seen, offsets=heard.offsets[0], grid=judge.panel.grid)
            values = judged_take(heard, here, partners).per_clip
            row["ib"] = float(values["ib"].mean())
            counts[system] |= {"ib_clips": len(shown), "desync_clips": sum(whole)}
            if any(whole):
                row["desync"] = float(values["desync"][np.array(whole)].mean())
        scores[system] = _short(row)
    return scores, counts


def few_clips(count: int) -> list[str]:
    """What has to be said where too few clips are scored to tell which system is best."""
    return [f"{count} clips are few: below {FEW_CLIPS} no system is marked as best."] if count < FEW_CLIPS else []


def derangement(count: int, seed: int) -> np.ndarray:
    """A seeded permutation in which no clip keeps its place (a single clip does)."""
    order = np.random.default_rng(seed).permutation(count)
    place = np.empty(count, dtype=np.int64)
    # One cycle through a random order: each clip gets its successor.
    place[order] = np.roll(order, -1)
    return place


def _until(events: Sequence[float] | None, end_s: float) -> list[float]:
    return [time for time in events or () if time < end_s]


def _short(row: Mapping[str, float]) -> dict[str, float]:
    """Four significant digits, five from 100 on: DVC's tables are as wide as the numbers in the files."""
    return {name: float(f"{value:.{5 if abs(value) >= 100 else 4}g}") for name, value in row.items()}


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    """Six significant digits: the others are rounding errors of the networks."""
    return {name: float(f"{value:.6g}") for name, value in row.items()}
