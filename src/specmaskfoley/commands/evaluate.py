"""The console command `specmaskfoley evaluate`: score folders of sounds with the judges of a profile."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specmaskfoley.device import start
from specmaskfoley.evaluation.agreement import SOUND_SUFFIXES, VIDEO_SUFFIXES, Found, find_files
from specmaskfoley.evaluation.comparison import (
    ComparedFiles,
    Comparison,
    compare_systems,
    few_clips,
    score_as_published,
)
from specmaskfoley.evaluation.extra import with_extra
from specmaskfoley.evaluation.foreign import foreign
from specmaskfoley.evaluation.judging import judging
from specmaskfoley.evaluation.labels import categories, read_labels, words
from specmaskfoley.judges.extra import load_extra
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.report.results import write_evaluation
from specmaskfoley.report.tables import category_table, markdown_scores, to_markdown
from specmaskfoley.settings import Params
from specmaskfoley.systems import TRUE

_NAMED = 20


def evaluate(
    params_file: Path,
    generated: Sequence[str],
    reference: Path,
    *,
    videos: Path | None = None,
    pattern: str = "*",
    duration_s: float | None = None,
    profile: str | None = None,
    min_coverage: float | None = None,
    as_published: bool = False,
    extra: Sequence[str] = (),
    labels: Path | None = None,
    by: str | None = None,
    out: Path | None = None,
) -> list[str]:
    """Score folders of sounds and return lines for the terminal. See `specmaskfoley evaluate --help`.

    Raises:
        ValueError, OSError: naming the folder, file or setting and what to do.
    """
    params = settings(params_file, profile, duration_s, min_coverage)
    if as_published and (extra or labels or by):
        raise ValueError("--as-published: av-benchmark's metrics alone; leave out --extra, --labels and --by")
    if labels is not None and by is None and "clap" not in extra:
        raise ValueError(f"--labels {labels}: is for --extra clap or --by NAME; give one of them")
    files = find_compared_files(generated, reference, videos, pattern, params)
    given, out = out, None if out is None else out.resolve()
    table = None if labels is None else labels.resolve()
    known = {} if table is None else read_labels(table, list(files.reference.files))
    parts = {} if by is None else categories(known, by, table)
    said = words(known, table) if "clap" in extra else {}
    os.chdir(params_file.absolute().parent)  # paths in params.yaml count from its own directory
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out {given}: is a file; name a folder")
    if out == Path(params.paths.metrics).resolve():
        raise ValueError(f"--out {given}: holds the scores of this project; name another, such as {given}/others/NAME")
    clips: dict[str, Any]
    intervals: dict[str, Any] = {}
    device = start(params)
    others = [load_extra(name, params, device) for name in dict.fromkeys(extra)]
    with judging(load_panel(params, device), params) as judge:
        if as_published:
            scores, counts = score_as_published(judge, files)
            rows = {name: row | counts[name] for name, row in scores.items()}
            few = few_clips(int(min(row["kl_clips"] for row in counts.values())))
            heard = f"as av-benchmark computes them, at {judge.panel.duration_s:g} s"
            lines = [markdown_scores(rows, ranked=not few), heard]
            clips = {"counts": counts, "as_published": True, "warnings": few, "ranked": not few}
        else:
            comparison = compare_systems(judge, files, params.evaluate, params.seed)
            for other in others:
                comparison = with_extra(comparison, files, other, said, params)
            scores, clips = comparison.scores(), comparison.summary()
            strange = foreign([files.reference.files[clip] for clip in comparison.agreement.clips], params)
            clips["warnings"] += [strange] if strange else []
            clips["ranked"] &= not strange
            lines = [
                markdown_scores(scores, ranked=clips["ranked"]),
                f"{clips['clips']} clips of {clips['duration_s']:g} s, {clips['coverage']:.1%} of the reference, "
                f"list {clips['hash']}",
                *_named("not scored", clips["excluded"]),
                *_named("noted", clips["noted"]),
            ]
            if by is not None:
                clips["by"], (clips["subsets"], more) = by, _by_category(comparison, parts, by)
                lines += more
            intervals = comparison.intervals(params.evaluate.resamples, params.seed)
    lines += [f"warning: {warning}" for warning in clips["warnings"]]
    if out is not None:
        write_evaluation(out, scores, intervals, clips | {"profile": params.profile, "judges": params.judges.kind})
        lines.append(f"written to {out}")
    return lines


def _by_category(
    comparison: Comparison, parts: Mapping[str, frozenset[str]], by: str
) -> tuple[dict[str, Any], list[str]]:
    """Scores of each category with two clips at least, and a table a system."""
    found = {name: part for name, members in parts.items() if (part := comparison.subset(members))}
    lines = [to_markdown(category_table(system, by, found)) for system in comparison.takes] if found else []
    small, labelled = [name for name in parts if name not in found], frozenset[str]().union(*parts.values())
    if small:
        lines.append(f"{by}: fewer than two clips are scored of {', '.join(small)}")
    if without := sorted(set(comparison.agreement.clips) - labelled):
        lines.append(f"{by}: not stated for {len(without)} clips, such as {without[0]}")
    return found, lines


def settings(params_file: Path, profile: str | None, duration_s: float | None, min_coverage: float | None) -> Params:
    """The settings of a profile, with another duration and coverage.

    Raises:
        ValueError: the judges cannot hear this duration.
    """
    params = Params.load(params_file, profile)
    raw = params.model_dump()
    if duration_s is not None and duration_s != params.audio.duration_s:
        if params.judges.kind == "mini":
            raise ValueError(
                f"--duration-s {duration_s:g}: the judges of profile {params.profile} were trained on sounds of "
                f"{params.audio.duration_s:g} s; leave the option out, or take --profile vggsound"
            )
        raw["audio"]["duration_s"] = float(duration_s)
        raw["prepare"]["min_duration_s"] = min(params.prepare.min_duration_s, float(duration_s))
    if min_coverage is not None:
        raw["evaluate"]["min_coverage"] = min_coverage
    return Params.model_validate(raw)


def find_compared_files(
    generated: Sequence[str], reference: Path, videos: Path | None, pattern: str, params: Params
) -> ComparedFiles:
    """The files of all folders, by clip; a NAME=DIR that is given again is another take of NAME.

    Raises:
        ValueError: a folder is missing or holds no sounds, or a name is taken.
    """
    true = find_files(reference.resolve(), (*SOUND_SUFFIXES, *VIDEO_SUFFIXES))
    clips = [*true.files, *true.trouble]
    shown: Found | None = None
    seen = {clip: video for clip, path in true.files.items() if (video := _video_of(path))}
    if videos is not None:
        shown = find_files(videos.resolve(), VIDEO_SUFFIXES, known=clips)
    elif len(seen) == len(true.files):
        shown = Found(seen, true.trouble)
    systems: dict[str, list[Found]] = {}
    for item in generated:
        name, folder = _named_folder(item)
        if name == TRUE:
            raise ValueError(f"--generated {item}: {TRUE} is the reference's own row; give another name")
        systems.setdefault(name, []).append(
            find_files(folder, (*SOUND_SUFFIXES, *VIDEO_SUFFIXES), pattern, known=clips)
        )
    return ComparedFiles(
        reference=true,
        videos=shown,
        systems=systems,
        shortest_s=min(params.prepare.min_duration_s, params.audio.duration_s),
    )


def _video_of(path: Path) -> Path | None:
    """The file itself if it is a video, else the video of its name beside it."""
    candidates = [path, *(path.with_suffix(suffix) for suffix in VIDEO_SUFFIXES)]
    return next((file for file in candidates if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()), None)


def _named_folder(item: str) -> tuple[str, Path]:
    """NAME=DIR, or DIR, whose name is then its last part."""
    if "=" in item and not Path(item).is_dir():
        name, folder = item.split("=", 1)
        if not name or "/" in name:
            raise ValueError(f"--generated {item}: expected NAME=DIR, without / in NAME, or DIR")
        return name, Path(folder).resolve()
    path = Path(item).resolve()
    return path.name, path


def _named(what: str, clips: dict[str, str]) -> list[str]:
    """Lines for the first clips of a list, with their reasons."""
    lines = [f"{what}: {len(clips)} clips"] if clips else []
    lines += [f"  {clip}: {reason}" for clip, reason in list(clips.items())[:_NAMED]]
    return [*lines, *([f"  and {len(clips) - _NAMED} more; --out DIR writes all"] if len(clips) > _NAMED else [])]
