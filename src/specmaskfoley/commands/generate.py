"""The console command `specmaskfoley generate`: many videos, one line each.

Whatever can be refused is refused before the model is loaded, and what the arguments alone tell before torch is
imported.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import re
import signal
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TextIO

from tqdm import tqdm

from specmaskfoley.clips.searching import MEDIA, VIDEOS, files_below
from specmaskfoley.commands.prompt_list import Row, read_rows, text_beside
from specmaskfoley.foley.prompts import Prompt, Text
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256
from specmaskfoley.storage.results import fitted, in_the_way, is_result, sweep

if TYPE_CHECKING:
    from specmaskfoley.foley import Foley, Saved, Take
    from specmaskfoley.foley.records import Record
    from specmaskfoley.media.probe import MediaInfo

_SPAN = re.compile(r"\s*(\d+(?:\.\d*)?)\s*-\s*(\d+(?:\.\d*)?)\s*", re.ASCII)
_LONGEST_NAME = 80
"""Letters of a name that is made from words."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be made of a video; see `specmaskfoley generate --help`.

    text, negative, like: as `Foley.generate` takes them.
    texts_beside: whether a text that lies beside a video takes the place of none.
    duration_s: of sounds without video.
    sampling: settings of `Sampling` that were given.
    """

    text: Text = ""
    negative: str = ""
    like: Path | None = None
    texts_beside: bool = True
    duration_s: float | None = None
    candidates: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    keep_original_audio: Literal["mix", "replace"] = "replace"
    format: Literal["flac", "wav"] = "flac"
    only: tuple[tuple[float, float], ...] = ()
    from_audio: Path | None = None
    extend_band: float | None = None
    record: Path | None = None
    max_duration_s: float = 14400.0
    picture: Literal["copy", "encode"] = "copy"
    audio_track: int | None = None
    overwrite: bool = False
    skip_existing: bool = False

    @property
    def prompt(self) -> Prompt:
        """
        Raises:
            ValueError: naming what is wrong with it.
        """
        return Prompt.of(self.text, self.negative, self.like)

    @property
    def edits(self) -> bool:
        return bool(self.only) or self.extend_band is not None or self.from_audio is not None

    @property
    def reads_own_sound(self) -> bool:
        """Whether the sound of the video itself is edited or mixed."""
        return self.keep_original_audio == "mix" or (self.edits and self.from_audio is None)

    def check(self, videos: int, *, table: bool) -> None:
        """What goes for all videos.

        Args:
            table: whether there is one of prompts.

        Raises:
            ValueError: naming options that do not go together.
        """
        if self.extend_band is not None and self.only:
            raise ValueError("--extend-band works on the whole sound; leave out --only, or run the command twice")
        for option, path in (("--from-audio", self.from_audio), ("--record", self.record)):
            if path is not None and (table or videos > 1):
                found = "leave out --prompts" if table else f"found {videos} videos"
                raise ValueError(f"{option} {path} is of one video; {found}")
        if self.skip_existing and (self.edits or self.record is not None):
            raise ValueError(
                "--skip-existing is for new sounds; leave it out with --only, --from-audio, --extend-band and --record"
            )
        prompt = self.prompt
        for option, words in (*(("--text", text) for text in prompt.texts), ("--negative", prompt.negative)):
            try:
                words.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{option} {words!a} is not UTF-8") from None
        for option, name in (("--cfg-scale", "scale"), ("--negative-scale", "negative_scale")):
            if not math.isfinite(value := self.sampling.get(name, 0.0)):
                raise ValueError(f"{option} {value} is not finite")
        edits = bool(self.only) or self.extend_band is not None
        changes = prompt.text or prompt.parts or self.negative or self.sampling or self.candidates > 1 or edits
        if self.record is not None and (changes or self.duration_s):
            raise ValueError(
                f"--record {self.record} says how the sound was made; leave out --text, --negative, --duration, "
                "--seed, --candidates, --steps, --cfg-scale, --negative-scale, --only and --extend-band"
            )

    def check_one(self, video: Path | None) -> None:
        """
        Raises:
            ValueError: the prompt is wrong; or without a video there is something missing, with one too much.
        """
        prompt = self.prompt
        if video is not None and self.duration_s is not None:
            raise ValueError(f"--duration {self.duration_s:g} is for sounds without video; leave it out, or the video")
        if video is not None or self.record is not None:
            return
        if self.duration_s is None or not prompt.given:
            raise ValueError("name a video; or, for a sound without one, give --duration SECONDS and --text or --like")
        if not 0 < self.duration_s <= self.max_duration_s:
            raise ValueError(f"--duration {self.duration_s:g}: expected seconds up to {self.max_duration_s:g}")
        prompt.check(self.duration_s)
        if self.edits or self.keep_original_audio != "replace":
            raise ValueError("--only, --from-audio, --extend-band and --keep-original-audio need a video")

    def differs(self, video: Path | None) -> tuple[Any, ...]:
        """What one row of a table has other than the next, with the video."""
        place = None if video is None else video.resolve()
        return place, self.prompt, self.duration_s, tuple(sorted({"seed": 0, **self.sampling}.items()))

    def check_video(self, info: MediaInfo | None) -> MediaInfo:
        """
        Args:
            info: what the look into the video found; None: sound only.

        Raises:
            ValueError: naming what cannot be done with it.
        """
        if info is None:
            raise ValueError("there is no video in this file")
        for begin, end in self.only:
            if begin >= info.duration_s:
                raise ValueError(f"--only {begin:g}-{end:g}: the video ends at {info.duration_s:.2f} s")
        self.prompt.check(info.duration_s)
        if self.audio_track is not None and self.audio_track > info.audio_tracks:
            raise ValueError(f"--audio-track {self.audio_track}: the video has {info.audio_tracks} sound tracks")
        own_sound = self.from_audio is None and self.record is None
        if own_sound and (self.only or self.extend_band is not None) and info.audio_rate is None:
            raise ValueError("the video has no sound to edit; give one with --from-audio")
        return info

    def notes(self, info: MediaInfo) -> Iterator[str]:
        """What the user may not expect of a video."""
        for begin, end in self.only:
            if end > info.duration_s:
                yield f"--only {begin:g}-{end:g}: made up to {info.duration_s:.2f} s, where the video ends"
        if info.audio_tracks > 1 and self.reads_own_sound and self.audio_track is None:
            yield (
                f"of its {info.audio_tracks} sound tracks the one that players play is used; --audio-track chooses "
                "another"
            )


@dataclass(frozen=True)
class Work:
    """A sound to make.

    video: what for; None: it is made from words, or like a sound.
    place: of the results below `out`, with the name of the video.
    row: of a table of prompts; 0: there is none.
    targets: paths without ending, of the best candidate first.
    suffix: of the new video; None: there will be none.
    """

    video: Path | None
    place: Path
    options: Options
    row: int = 0
    targets: tuple[Path, ...] = ()
    suffix: str | None = None

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def label(self) -> str:
        """For errors."""
        return f"row {self.row}: {self.name}" if self.row else self.name

    @property
    def files(self) -> list[Path]:
        from specmaskfoley.foley.takes import Saved

        return [file for target in self.targets for file in Saved.named(target, self.options.format, self.suffix).files]


def generate_all(paths: Sequence[Path], out: Path, options: Options, source: Path, table: Path | None = None) -> int:
    """Make and save sounds of all videos; returns how many failed.

    Args:
        paths: videos, and folders of them.
        source: a folder with a model, or a project's params.yaml.
        table: of prompts; see `prompt_list.read_rows`.
    """
    videos = find_videos(paths, out)
    rows = [] if table is None else read_rows(table)
    options.check(len(videos), table=table is not None)
    check_out(out)
    params = Params.load(source / "params.yaml" if source.is_dir() else source)
    record = None
    if options.record is not None:
        from specmaskfoley.foley.records import Record

        record = Record.read(options.record)
    else:
        options.prompt.check_ears(params.encoders.prompt.hears)
    home = source if source.is_dir() else source.parent
    if videos or rows:
        wanted, failed = _plan(videos, rows, options)
    else:
        wanted, failed = [_alone(options, record)], 0
    wanted = _placed(wanted, out)
    work = _not_made_yet(wanted, params, home) if options.skip_existing else wanted
    if not work:
        return failed
    with _ending_in_order():
        with _uncollected():
            with _doing("looking at the videos"), _importing("torch"):
                work, unusable = _look(work, options, params)
            failed += unusable
            if not work:
                return failed
            _check_targets(work, out, options, wanted)
            if record is not None:
                record.check_inputs(work[0].video, options.from_audio, [options.like] if options.like else [])
            if not (last := home / params.paths.control).exists():
                raise ValueError(f"{last}: no such model; `dvc repro` trains it, or name a model's folder with --model")
            _open_folders({target.parent for one in work for target in one.targets}, out)
            if options.extend_band is not None:
                from specmaskfoley.foley.editing import rows_above

                rows_above(options.extend_band, params)
            alike = len({one.options.prompt.texts for one in work}) == 1
            _say_model(params, home, work[0].options.prompt.texts if alike else ())
            with _doing("loading the model"):
                foley = _load(source, options)
        silent: list[bool] = []
        for one in work:
            try:
                takes, saved = _make_and_save(foley, one)
            except (ValueError, OSError) as error:
                failed += 1
                _say_failed(one.label, error)
                continue
            _say_made(one, takes, saved)
            if not alike and (remark := takes[0].record["knowledge"]["remark"]):
                _say(f"  text: {_printable(remark)}")
            silent.append(takes[0].level.nearly_silent)
    if any(silent) and len(silent) > 1:
        _say(f"{sum(silent)} of {len(silent)} sounds are nearly silent")
    return failed


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nobody looks for garbage in what is imported and loaded meanwhile, neither now nor when the process ends: all of
    it stays, and looking takes half a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _importing(module: str) -> Iterator[None]:
    """Import a module meanwhile, since looking is mostly waiting for a worker process; and wait for it, since a process
    that ends while it imports prints errors."""
    thread = Thread(target=importlib.import_module, args=(module,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _plan(videos: Sequence[tuple[Path, Path]], rows: Sequence[Row], options: Options) -> tuple[list[Work], int]:
    """What is wanted: the rows, then the videos that none of them names; and how many rows are wrong.

    Of each wrong row a line was printed, and of each text that lies beside a video.

    Args:
        videos: what `find_videos` returns.

    Raises:
        ValueError: the options are wrong.
    """
    places = {video.resolve(): place for video, place in videos}
    wanted: list[Work] = []
    first: dict[Any, int] = {}
    for row in rows:
        try:
            one = _of_row(row, places, options)
            same = first.setdefault(one.options.differs(one.video), row.number)
            if same != row.number:
                raise ValueError(f"the same as row {same}; give another text or seed for another sound")
            wanted.append(one)
        except ValueError as error:
            _say_failed(f"row {row.number}", error)
    failed = len(rows) - len(wanted)
    named = {row.video.resolve() for row in rows if row.video is not None}
    own = replace(options, duration_s=None) if rows else options
    for video, place in videos:
        if video.resolve() not in named:
            one = Work(video, place, _with_text_beside(video, own))
            one.options.check_one(video)
            wanted.append(one)
    return wanted, failed


def _of_row(row: Row, places: Mapping[Path, Path], options: Options) -> Work:
    """
    Raises:
        ValueError: the row is wrong.
    """
    if row.problem:
        raise ValueError(row.problem)
    said: dict[str, Any] = {"duration_s": row.duration_s}
    if row.text or row.like:
        said |= {"text": row.text, "like": row.like}
    if row.negative:
        said["negative"] = row.negative
    if row.seed is not None:
        said["sampling"] = {**options.sampling, "seed": row.seed}
    if row.video is None and row.duration_s is None:
        said["duration_s"] = options.duration_s
    own = replace(options, **said)
    if row.video is not None:
        own = _with_text_beside(row.video, own)
    try:
        if row.asks_text and options.texts_beside and not own.prompt.given:
            raise ValueError("text is empty; say what is heard, or give --text '' so that the video alone decides")
        own.check_one(row.video)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("--")) from None
    if row.video is None:
        return replace(_alone(own, None), row=row.number)
    return Work(row.video, places.get(row.video.resolve(), Path(row.video.name)), own, row.number)


def _with_text_beside(video: Path, options: Options) -> Options:
    """With the text that lies beside the video, where there is none; says so."""
    if options.prompt.given or not options.texts_beside or options.record is not None:
        return options
    text, sentence = text_beside(video)
    if sentence:
        _say(f"{_printable(video.name)}: {_printable(sentence)}")
    return replace(options, text=text)


def _placed(wanted: Sequence[Work], out: Path) -> list[Work]:
    """With the paths of the results."""
    candidates = wanted[0].options.candidates if wanted else 1
    targets = name_targets([one.place for one in wanted], out, candidates)
    return [
        replace(one, targets=tuple(_numbered(target, candidates))) for one, target in zip(wanted, targets, strict=True)
    ]


def _not_made_yet(wanted: Sequence[Work], params: Params, home: Path) -> list[Work]:
    """What is not there already; of the others a line is printed."""
    from specmaskfoley.commands.existing import Existing

    existing, work = Existing(params, home), []
    for one in wanted:
        if existing.has(one):
            _say(f"{_printable(one.name)}: made already -> {_printable(f'{one.targets[0]}.{one.options.format}')}")
        else:
            work.append(one)
    return work


def _say_model(params: Params, home: Path, texts: Sequence[str]) -> None:
    """Say which model makes the sounds, what it knows, and what it knows of the texts."""
    from specmaskfoley.foley.knowledge import Knowledge

    knowledge = Knowledge.of(params, home)
    _say(f"model: {knowledge.sentence}")
    if remark := knowledge.remarks(texts):
        _say(f"--text: {_printable(remark)}")


def _load(source: Path, options: Options) -> Foley:
    from specmaskfoley.foley import Foley
    from specmaskfoley.foley.choosing import doubt

    foley = Foley.load(source, record=options.record)
    if options.candidates > 1:
        foley.judges  # noqa: B018, loaded before the work that they are for
        if says := doubt(foley.params):
            _say(says)
    return foley


def _make_and_save(foley: Foley, one: Work) -> tuple[list[Take], list[Saved]]:
    options = one.options
    with tqdm(total=100, desc=one.name[:40], unit="%", bar_format=_BAR, disable=None) as bar:
        takes = make(foley, one.video, options, bar)
    return takes, [
        take.save(
            target, format=options.format, keep_original_audio=options.keep_original_audio, picture=options.picture,
            audio_track=options.audio_track, overwrite=options.overwrite,
        )
        for target, take in zip(one.targets, takes, strict=True)
    ]  # fmt: skip


def _say_made(one: Work, takes: Sequence[Take], saved: Sequence[Saved]) -> None:
    """What became of a video: its files, and what is to be said of the sounds."""
    _say(f"{_printable(one.name)}: {takes[0].duration_s:.2f} s -> {_printable(str(saved[0].files[-2]))}")
    for trouble in {files.trouble for files in saved if one.suffix is not None and files.trouble}:
        _say(f"  no video: {' '.join(trouble.split())}")
    if len(takes) == 1:
        _say(f"  {takes[0].level.sentence}")
        return
    for number, (take, files) in enumerate(zip(takes, saved, strict=True), start=1):
        scores = "" if take.verdict is None else f": {take.verdict.scores}"  # without a video there are none
        _say(f"  {number}. seed {take.seed}{scores} -> {_printable(files.audio.name)}")
        if take.verdict is not None and take.verdict.place:
            _say(f"     {take.verdict.place}")
        if take.level.nearly_silent:
            _say(f"     {take.level.sentence}")


@contextmanager
def _doing(what: str) -> Iterator[None]:
    """Say on a terminal what is being done, as long as it is."""
    with tqdm(desc=what, bar_format="{desc} ...", leave=False, disable=None):
        yield


def _look(wanted: Sequence[Work], options: Options, params: Params) -> tuple[list[Work], int]:
    """What can be made, and how much cannot; of each of that a line was printed.

    Raises:
        ValueError: a sound that the options name cannot be used.
    """
    from specmaskfoley.clips.looking import check_media, checked, look_into
    from specmaskfoley.foley.takes import video_suffix
    from specmaskfoley.media.writing import COPIED

    @cache
    def heard(option: str, sound: Path) -> str:
        """What is wrong with it."""
        try:
            check_media(sound, params.prepare)
        except ValueError as error:
            return f"{option} {sound}: {error}"
        return ""

    for option, sound in (("--from-audio", options.from_audio), ("--like", options.like)):
        if sound is not None and (wrong := heard(option, sound)):
            raise ValueError(wrong)
    work: list[Work] = []
    looks = look_into([one.video for one in wanted if one.video is not None], params.prepare)
    for one in wanted:
        look = None if one.video is None else next(looks)
        try:
            like = one.options.like
            if like is not None and like != options.like:
                one.options.prompt.check_ears(params.encoders.prompt.hears)
                if wrong := heard("like", like):
                    raise ValueError(wrong)
            if one.video is not None:
                info = one.options.check_video(checked(look, options.max_duration_s))
                one = replace(one, suffix=video_suffix(one.video, options.picture))
                if one.suffix is None:
                    formats = ", ".join(COPIED)
                    _say(
                        f"{_printable(one.name)}: its picture cannot be copied into {formats}: there will be the sound "
                        "alone; --picture encode writes a video with H.264"
                    )
                for note in one.options.notes(info):
                    _say(f"{_printable(one.name)}: {note}")
            work.append(one)
        except (ValueError, OSError) as error:
            _say_failed(one.label, error)
    return work, len(wanted) - len(work)


def _alone(options: Options, record: Record | None) -> Work:
    """The sound without video that is wanted, which has its name from its words.

    Raises:
        ValueError: there are none, or the record is of a sound for a video.
    """
    options.check_one(None)
    prompt = options.prompt
    said = prompt.like.stem if prompt.like is not None else " ".join(prompt.texts)
    if record is not None:
        first = record.history[0]
        if record.video is not None or first.operation != "generate":
            raise ValueError(f"--record {options.record} is of a sound for a video; name the video")
        words = first.text if isinstance(first.text, str) else " ".join(part[2] for part in first.text)
        said = words if first.like is None else Path(first.like.name).stem
    name = "-".join(re.findall(r"\w+", said))[:_LONGEST_NAME] or "sound"
    return Work(None, Path(name), options)


def check_out(out: Path) -> None:
    """
    Raises:
        ValueError: `out` cannot be a folder, or has the name of a file.
    """
    there = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ValueError(f"--out {out}: {there} is a file; name a folder")
    if there != out and out.suffix.lower() in {*MEDIA, ".json"}:
        raise ValueError(
            f"--out {out}: looks like a file, but a video has several results; name a folder, such as --out "
            f"{out.with_suffix('')}"
        )


def _check_targets(work: Sequence[Work], out: Path, options: Options, wanted: Sequence[Work]) -> None:
    """
    Raises:
        ValueError: naming all files that must not be replaced.
    """
    read = [options.from_audio, options.record, *(path for one in wanted for path in (one.video, one.options.like))]
    inputs = {path for path in read if path is not None}
    kept = [
        sentence
        for one in work
        for sentence in in_the_way(one.files, partial(_sha256, one.video), inputs, overwrite=options.overwrite)
    ]
    if kept:
        advice = "" if options.overwrite else "; --overwrite replaces all but folders and what is read"
        raise ValueError(f"--out {out}: {'; '.join(map(_printable, kept))}. Choose another folder{advice}")


def _sha256(video: Path | None) -> str | None:
    return None if video is None else sha256(video)


def _open_folders(folders: set[Path], out: Path) -> None:
    """Make the folders of the results, and remove what killed runs left in them.

    Raises:
        ValueError: one cannot be written to.
    """
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(f"--out {out}: {folder} cannot be written to: {error.strerror}") from None
        sweep(folder)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Signals that ask the process to end raise SystemExit, so that unfinished files are removed."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in signals if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


_BAR = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


def make(foley: Foley, video: Path | None, options: Options, bar: tqdm) -> list[Take]:
    """The takes of one video, the best first."""

    def progress(share: float, message: str) -> None:
        bar.set_postfix_str(message, refresh=False)
        bar.update(100 * share - bar.n)

    if options.record is not None:
        like = [options.like] if options.like is not None else []
        return [foley.remake(video, options.from_audio, like=like, progress=progress)]
    how: dict[str, Any] = {
        "text": options.text, "negative": options.negative, "like": options.like, "candidates": options.candidates,
        "progress": progress, **options.sampling,
    }  # fmt: skip
    if video is None:
        return foley.generate(duration_s=options.duration_s, **how)
    track = options.audio_track if options.from_audio is None else None
    if options.extend_band is not None:
        return foley.extend_band(foley.listen(video, options.from_audio, track), options.extend_band, **how)
    if options.only or options.from_audio is not None:
        return foley.regenerate(foley.listen(video, options.from_audio, track), only=options.only or None, **how)
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


def find_videos(paths: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Videos, and where below `out` the results of each belong, with the video's own name.

    Files as they are; of folders, what `files_below` finds with a video's ending. What lies in an `out` inside the
    folder is left out, and so are results.

    Raises:
        ValueError: a path does not exist, or a folder holds no video.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            own = out.resolve().relative_to(path.resolve()) if out.resolve().is_relative_to(path.resolve()) else Path()
            inside = [
                (path / name, name)
                for name in files_below(path, VIDEOS)
                if not (own.parts and name.is_relative_to(own)) and not is_result(path / name)
            ]
            if not inside:
                looked = ", ".join(sorted(VIDEOS))
                raise ValueError(f"{path}: no video in this folder, besides results (looked for {looked})")
            found += inside
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise ValueError(f"{path}: no such file or folder")
    return found


def name_targets(names: Sequence[Path], out: Path, candidates: int = 1) -> list[Path]:
    """Output paths without ending: the video's stem, with -2, -3, ... where files of two videos would share a name.

    Args:
        names: of the videos, as they are to lie below `out`.
    """
    targets: list[Path] = []
    taken: set[str] = set()
    more = f".{candidates}" if candidates > 1 else ""
    for name in names:
        stem, number = name.stem, 2
        if not stem.strip(". "):  # "...mp4" would lead out of the folder
            stem = "video"
        target = out / name.parent / fitted(stem, more)
        while not taken.isdisjoint(_keys(target, candidates)):
            target, number = target.with_name(fitted(f"{stem}-{number}", more)), number + 1
        targets.append(target)
        taken.update(_keys(target, candidates))
    return targets


def _keys(target: Path, candidates: int) -> set[str]:
    """What tells files apart on every system: some take A for a, and two ways of writing é for one."""
    return {unicodedata.normalize("NFC", str(path)).casefold() for path in _numbered(target, candidates)}


def _numbered(target: Path, candidates: int) -> list[Path]:
    """Names of the candidates' files; the best gets the plain one."""
    return [target, *(target.with_name(f"{target.name}.{number}") for number in range(2, candidates + 1))]


def _printable(name: str) -> str:
    """The name in one line, without control characters."""
    return name if name.isprintable() else ascii(name)


def _say_failed(name: str, error: Exception) -> None:
    _say(f"error: {_printable(name)}: {' '.join(str(error).split())}", sys.stderr)


def _say(line: str, stream: TextIO | None = None) -> None:
    """Print a line. Where nobody reads any more (a closed pipe, a full disk), the sounds are still wanted."""
    stream = stream or sys.stdout
    try:
        with tqdm.external_write_mode(stream):  # above what `_doing` shows
            print(line, file=stream, flush=True)
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
