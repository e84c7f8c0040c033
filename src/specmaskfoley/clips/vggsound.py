"""VGGSound's lists: which clips are wanted, by the splits of MMAudio.

A list is a TSV of lines `id<TAB>label`, with or without that header; an id is a YouTube id (11 characters), `_`, and
the second at which the ten seconds begin, in six digits. Labels may hold commas, and are not quoted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from specmaskfoley.clips.listing import clip_row
from specmaskfoley.clips.tsv import read_text, tsv_lines
from specmaskfoley.settings import Fetch, Params
from specmaskfoley.storage.files import sha256_text
from specmaskfoley.storage.tables import LISTED, SPLITS
from specmaskfoley.weights.download import Transfer, UnreachableError, download_checked
from specmaskfoley.weights.records import WrongFileError

CLIP_S = 10
"""Seconds of every clip of VGGSound."""

COMMIT = "974010a026c731054592d8f777218bd9d85a6c24"
LISTS_URL = "https://raw.githubusercontent.com/hkchengrex/MMAudio/{commit}/sets/vgg-{split}.tsv"
BLOBS = {
    "train": "e76c036d1513a1942e728b299fa7fef994fca7a8",
    "val": "710130de14c57fdb735088bf8d621608ae3fdfcb",
    "test": "45bd93f9f5099a87bce81ea87d4336b299cde7f3",
}
"""Git's content hashes of MMAudio's lists at COMMIT."""

CLIP_ID = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{6})")
"""YouTube id and the second at which a clip starts."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class VggSoundClip:
    """Ten seconds of a YouTube video."""

    youtube_id: str
    start_s: int
    label: str
    split: str

    @property
    def clip_id(self) -> str:
        return f"{self.youtube_id}_{self.start_s:06d}"

    @property
    def end_s(self) -> int:
        return self.start_s + CLIP_S


@dataclass(frozen=True)
class Wanted:
    """A clip of the lists: its state is LISTED, or the one that excludes it before anything is fetched."""

    clip: VggSoundClip
    state: str = LISTED
    reason: str = ""


def parse_list(text: str, *, split: str, where: str) -> list[VggSoundClip]:
    """The clips of one list, in its order; if an id is repeated, its first line counts.

    Raises:
        ValueError: with the number of the wrong line.
    """
    clips: dict[str, VggSoundClip] = {}
    for number, (name, label) in tsv_lines(text, where, ("id", "label")):
        found = CLIP_ID.fullmatch(name)
        if found is None:
            raise ValueError(
                f"{where}:{number}: {name!r} is not a YouTube id of 11 characters, _, and 6 digits for the second"
            )
        if not label:
            raise ValueError(f"{where}:{number}: the label of {name!r} is empty")
        clips.setdefault(name, VggSoundClip(found[1], int(found[2]), label, split))
    return list(clips.values())


def load_lists(params: Params) -> dict[str, list[VggSoundClip]]:
    """Split -> clips, from MMAudio's lists (downloaded once, checked by hash) or from the directory `data.lists`.

    Raises:
        ValueError: a list is absent, or a line of it is wrong.
    """
    named = params.data.lists or ""
    folder = _fetch_lists(params.fetch) if named == "mmaudio" else Path(named)
    lists = {}
    for split in SPLITS:
        path = folder / f"{split}.tsv"
        names = ", ".join(f"{name}.tsv" for name in SPLITS)
        text = read_text(
            path, f"data.lists={named!r}: {path} cannot be read; give mmaudio, or a directory with {names}"
        )
        lists[split] = parse_list(text, split=split, where=str(path))
    return lists


def shared_videos(lists: Mapping[str, Sequence[VggSoundClip]]) -> dict[str, str]:
    """YouTube ids in val or test -> the split, test before val."""
    return {clip.youtube_id: split for split in ("val", "test") for clip in lists.get(split, ())}


def draw(items: Sequence[Item], limit: int | None, seed: int, key: Callable[[Item], tuple[str, str]]) -> list[Item]:
    """Draw `limit` of the items, balanced over labels as far as possible; the same ones for the same seed.

    A smaller draw is part of a larger one: first one item of each label, then a second of each, and so on.

    Args:
        key: an item's id and label.
    """
    if limit is None or limit >= len(items):
        return list(items)

    def lot(number: int) -> str:
        return sha256_text(f"{seed}\0{key(items[number])[0]}")

    by_label: dict[str, list[int]] = {}
    for number in sorted(range(len(items)), key=lot):
        by_label.setdefault(key(items[number])[1], []).append(number)
    ranked = sorted((rank, lot(number), number) for numbers in by_label.values() for rank, number in enumerate(numbers))
    return [items[number] for number in sorted(number for _, _, number in ranked[:limit])]


def wanted(params: Params, universe: Collection[str] | None = None) -> list[Wanted]:
    """The clips that `data.lists`, `data.limit` and `data.exclude_shared` select; prints how many videos are shared.

    Training clips of a video that is also in val or test are `duplicate`; a limit skips them.

    Args:
        universe: the clip ids that are available, if that is known; the limit draws from these.
    """
    lists = load_lists(params)
    held_out = shared_videos(lists)
    result = []
    for split, clips in lists.items():
        here = [clip for clip in clips if universe is None or clip.clip_id in universe]
        shared = [clip for clip in here if split == "train" and clip.youtube_id in held_out]
        if shared:
            what = "kept out of" if params.data.exclude_shared else "left in"
            print(f"clips: {len(shared)} of {len(here)} clips of train are of videos in val or test: {what} training")
        left_out = set(shared) if params.data.exclude_shared else set()
        free = [clip for clip in here if clip not in left_out]
        limit = params.data.limit_of(split)
        chosen = draw(free, limit, params.seed, lambda clip: (clip.clip_id, clip.label))
        kept = set(chosen) | (left_out if limit is None else set())
        for clip in here:
            if clip in kept:
                reason = f"its video is also in {held_out[clip.youtube_id]}" if clip in left_out else ""
                result.append(Wanted(clip, "duplicate", reason) if clip in left_out else Wanted(clip))
    if not result:
        raise ValueError(
            f"data.lists={params.data.lists!r}: no clip is wanted; the lists, or what is left of them, are empty"
        )
    return result


def list_row(item: Wanted, path: Path, source: str, **found: Any) -> dict[str, Any]:
    """A `clip_row`; what the lists say against a clip comes before what its source found (state, reason and so on)."""
    clip = item.clip
    if item.state != LISTED:
        found = {"state": item.state, "reason": item.reason}
    return clip_row(clip.clip_id, path, clip.label, clip.split, source, **found)


def blob_id(content: bytes) -> str:
    """Git's hash of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def transfer_of(fetch: Fetch) -> Transfer:
    """How params.yaml says to download clips and their lists."""
    return Transfer(proxy=fetch.proxy, retries=fetch.retries, timeout_s=fetch.timeout_s)


def _fetch_lists(fetch: Fetch) -> Path:
    folder = Path(fetch.folder) / "lists" / COMMIT[:7]
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        path, url = folder / f"{split}.tsv", LISTS_URL.format(commit=COMMIT, split=split)
        if path.exists() and blob_id(path.read_bytes()) == BLOBS[split]:
            continue
        check = partial(_check_list, url=url, expected=BLOBS[split])
        try:
            download_checked(url, path, transfer_of(fetch), check, title=f"list of {split}")
        except WrongFileError as error:
            raise ValueError(f"{error}; is a proxy in between?") from None
        except UnreachableError as error:
            raise ValueError(
                f"data.lists='mmaudio': {error}: check the network and fetch.proxy, or name a directory of lists "
                "(docs/data.md)"
            ) from None
    return folder


def _check_list(path: Path, *, url: str, expected: str) -> None:
    if (found := blob_id(path.read_bytes())) != expected:
        raise WrongFileError(f"{url}: expected the content with git hash {expected}, found {found}")
