"""The console command `specmaskfoley generate`: many videos, one line each.

Imports neither torch nor a decoder until the arguments are known to make sense.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from specmaskfoley.clips.folder import SUFFIXES

if TYPE_CHECKING:
    from specmaskfoley.foley import Foley, Take

_SPAN = re.compile(r"\s*(\d+(?:\.\d*)?)\s*-\s*(\d+(?:\.\d*)?)\s*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be made of every video; see `specmaskfoley generate --help`.

    sampling: settings of `Sampling` that were given.
    """

    text: str = ""
    candidates: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    keep_original_audio: Literal["mix", "replace"] = "replace"
    format: Literal["flac", "wav"] = "flac"
    only: tuple[tuple[float, float], ...] = ()
    from_audio: Path | None = None
    extend_band: float | None = None
    record: Path | None = None
    max_duration_s: float = 14400.0

    def check(self, videos: Sequence[Path]) -> None:
        """
        Raises:
            ValueError: naming options that do not go together.
        """
        if self.extend_band is not None and self.only:
            raise ValueError("--extend-band works on the whole sound; leave out --only, or run the command twice")
        for option, path in (("--from-audio", self.from_audio), ("--record", self.record)):
            if path is not None and len(videos) > 1:
                raise ValueError(f"{option} {path} is of one video; found {len(videos)} videos")
        scale = self.sampling.get("scale", 0.0)
        if not math.isfinite(scale):
            raise ValueError(f"--cfg-scale {scale} is not finite")
        changes = self.text or self.sampling or self.candidates > 1 or self.only or self.extend_band is not None
        if self.record is not None and changes:
            raise ValueError(
                f"--record {self.record} says how the sound was made; leave out --text, --seed, --candidates, --steps, "
                "--cfg-scale, --only and --extend-band"
            )


def generate_all(videos: Sequence[Path], out: Path, options: Options, source: Path) -> int:
    """Make and save sounds of all videos; returns how many failed.

    Args:
        source: a folder with a model, or a project's params.yaml.
    """
    options.check(videos)
    from specmaskfoley.clips.looking import check_media, checked, look_into
    from specmaskfoley.foley import Foley
    from specmaskfoley.media.writing import muxed_suffix

    foley = Foley.load(source, record=options.record)
    prepare = foley.params.prepare
    if options.from_audio is not None:
        try:
            check_media(options.from_audio, prepare)
        except ValueError as error:
            raise ValueError(f"--from-audio {options.from_audio}: {error}") from None
    failed = 0
    looks = look_into(videos, prepare)
    for path, target, look in zip(videos, name_targets(videos, out, options.candidates), looks, strict=True):
        try:
            if checked(look, options.max_duration_s) is None:
                raise ValueError("there is no video in this file")
            muxed_suffix(path)  # whether the picture can be copied is better known before the work
            with tqdm(total=100, desc=path.name[:40], unit="%", bar_format=_BAR, disable=None) as bar:
                takes = make(foley, path, options, bar)
            saved = [
                take.save(name, format=options.format, keep_original_audio=options.keep_original_audio)
                for name, take in zip(_numbered(target, len(takes)), takes, strict=True)
            ]
        except (ValueError, OSError) as error:
            failed += 1
            print(f"error: {_printable(path.name)}: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        print(f"{_printable(path.name)}: {takes[0].duration_s:.2f} s -> {_printable(str(saved[0].video))}")
        for number, (take, files) in enumerate(zip(takes, saved, strict=True), start=1):
            if take.scores is not None:
                scores = ", ".join(f"{name} {value:.3f}" for name, value in take.scores.items())
                print(f"  {number}. seed {take.seed}: {scores} -> {_printable(files.audio.name)}")
    return failed


_BAR = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


def make(foley: Foley, video: Path, options: Options, bar: tqdm) -> list[Take]:
    """The takes of one video, the best first."""

    def progress(share: float, message: str) -> None:
        bar.set_postfix_str(message, refresh=False)
        bar.update(100 * share - bar.n)

    if options.record is not None:
        return [foley.remake(video, options.from_audio, progress=progress)]
    how: dict[str, Any] = {
        "text": options.text, "candidates": options.candidates, "progress": progress, **options.sampling,
    }  # fmt: skip
    if options.extend_band is not None:
        return foley.extend_band(foley.listen(video, options.from_audio), options.extend_band, **how)
    if options.only or options.from_audio is not None:
        return foley.regenerate(foley.listen(video, options.from_audio), only=options.only or None, **how)
    return foley.generate(video, **how)


def parse_span(text: str) -> tuple[float, float]:
    """`3.2-5.0` as seconds.

    Raises:
        ValueError: it is not such a span.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"--only {text}: expected seconds from and to, such as 3.2-5.0")
    begin, end = (float(part) for part in found.groups())
    if begin >= end:
        raise ValueError(f"--only {text}: the end must come after the beginning")
    return begin, end


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; of folders, all files inside whose ending is a video's.

    Raises:
        ValueError: a path does not exist, or a folder holds no video.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"{path}: no video in this folder (looked for {', '.join(sorted(SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"{path}: no such file or folder")
    return found


def name_targets(videos: Sequence[Path], out: Path, candidates: int = 1) -> list[Path]:
    """Output names without ending: the video's stem, with -2, -3, ... where files of two videos would share a name."""
    targets: list[Path] = []
    taken: set[Path] = set()
    for path in videos:
        stem, number = path.stem, 2
        if not stem.strip(". "):  # "...mp4" would lead out of the folder
            stem = "video"
        target = out / stem
        while not taken.isdisjoint(_numbered(target, candidates)):
            target, number = out / f"{stem}-{number}", number + 1
        targets.append(target)
        taken.update(_numbered(target, candidates))
    return targets


def _numbered(target: Path, candidates: int) -> list[Path]:
    """Names of the candidates' files; the best gets the plain one."""
    return [target, *(target.with_name(f"{target.name}.{number}") for number in range(2, candidates + 1))]


def _printable(name: str) -> str:
    """The name in one line, without control characters."""
    return name if name.isprintable() else ascii(name)
