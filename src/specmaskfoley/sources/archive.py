"""Source `archive`: VGGSound as tar parts, from a hub, a plain web server or a directory.

Of a hub the commit is pinned at the first run, with the size and sha256 of every part (`parts.json` in fetch.folder);
elsewhere a file SHA256SUMS beside the parts states them. One part at a time is downloaded, checked, read through and
deleted; what it holds is kept in `members/`, so that a part without an open clip is never downloaded again.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from tqdm import tqdm

from specmaskfoley.config import Params
from specmaskfoley.sources.folder import write_note
from specmaskfoley.sources.store import Store
from specmaskfoley.sources.vggsound import wanted
from specmaskfoley.storage.files import atomic_path, read_json, write_json
from specmaskfoley.storage.tables import LISTED
from specmaskfoley.weights.download import Transfer, discard, download

_MEMBER = re.compile(r"(?:.*/)?([A-Za-z0-9_-]{11}_\d{6})\.mp4")
_PART = re.compile(r".*\.(?:tar|tar\.gz|tgz)")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Part:
    """One tar file of the archive."""

    name: str
    size: int | None
    sha256: str


def list_clips(params: Params) -> list[dict[str, Any]]:
    """Take every wanted clip that is not here yet out of the parts; a killed run goes on.

    With `fetch.parts`, `data.limit` draws from what these parts hold. Without, a clip is `missing` when all parts have
    been read and none holds it: the first run needs every part once, whatever the limit.

    Raises:
        ValueError: a setting is wrong, or a part is not what it was.
        OSError: a download does not go on; the next run does.
    """
    fetch = params.fetch
    with Store(Path(fetch.folder), source="archive", again=fetch.again) as store:
        archive = _Archive(params, store)
        universe = None
        if fetch.parts is not None:
            for part in archive.parts:
                archive.members(part)
            universe = {clip_id for part in archive.parts for clip_id in archive.members(part)}
        items = wanted(params, universe)
        open_ids = {clip.clip_id for clip in store.to_fetch(item.clip for item in items if item.state == LISTED)}
        archive.extract(open_ids)
        for clip_id in sorted(open_ids):
            store.conclude(clip_id, "missing", f"in none of the {len(archive.parts)} parts")
        rows = store.rows(items)
    write_note(Path(params.paths.clips))
    return rows


class _Archive:
    """The parts that are to be read."""

    def __init__(self, params: Params, store: Store) -> None:
        fetch = params.fetch
        self._address, self._store, self._folder = fetch.archive.rstrip("/"), store, store.folder
        self._transfer = Transfer(proxy=fetch.proxy, retries=fetch.retries, timeout_s=fetch.timeout_s)
        self._local = None if "://" in self._address else Path(self._address)
        self._commit, known = self._pinned()
        if unknown := sorted(set(fetch.parts or ()) - {part.name for part in known}):
            raise ValueError(
                f"fetch.parts={', '.join(unknown)}: not in {self._address}, which has "
                f"{', '.join(part.name for part in known)}"
            )
        self.parts = [part for part in known if fetch.parts is None or part.name in fetch.parts]

    def members(self, part: Part) -> list[str]:
        """The ids in a part, which is downloaded if nobody has looked into it yet."""
        path = self._members_path(part)
        if not path.exists():
            found = [name for name, _ in self._read(part)]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(f"{name}\n" for name in sorted(set(found))), encoding="utf-8")
        return path.read_text(encoding="utf-8").split()

    def extract(self, open_ids: set[str]) -> None:
        """Take these clips out of the parts that hold them, or may; those found are taken out of the set too."""
        for number, part in enumerate(self.parts, start=1):
            known = self._members_path(part).exists()
            if not open_ids or (known and open_ids.isdisjoint(self.members(part))):
                self._drop(part)
                continue
            counts: Counter[str] = Counter()
            names = []
            for name, content in self._read(part):
                names.append(name)
                counts["members"] += 1
                if name in open_ids:
                    target = self._store.path(name)
                    with atomic_path(target) as temporary:
                        temporary.write_bytes(content())
                    self._store.conclude(name)
                    open_ids.discard(name)
                    counts["taken"] += 1
            with atomic_path(self._members_path(part)) as temporary:
                temporary.write_text("".join(f"{name}\n" for name in sorted(set(names))), encoding="utf-8")
            which = f"{part.name} ({number} of {len(self.parts)})"
            print(f"clips: {which}: {counts['taken']} of {counts['members']} clips taken", flush=True)
            self._drop(part)

    def _read(self, part: Part) -> Iterator[tuple[str, Any]]:
        """Id and content (to be called at once) of every clip in a part; a damaged end of it is said, not fatal."""
        path = self._fetch(part)
        size, title = path.stat().st_size, f"reading {part.name}"
        with (
            path.open("rb") as raw,
            tqdm.wrapattr(raw, "read", total=size, desc=title, disable=None, leave=False) as watched,
        ):
            stream: Any = watched
            try:
                with tarfile.open(fileobj=stream, mode="r|*") as tar:
                    for member in tar:
                        # Only the last part of a name counts, and only of plain files: nothing is written elsewhere.
                        found = _MEMBER.fullmatch(member.name) if member.isreg() else None
                        content = tar.extractfile(member) if found else None
                        if found and content:
                            yield found[1], content.read
            except (tarfile.TarError, EOFError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's own
                print(f"clips: {part.name} is damaged inside ({error}); the clips after that are lost", flush=True)

    def _fetch(self, part: Part) -> Path:
        """The part on this disk, checked."""
        if self._local is not None:
            path = self._local / part.name
            if not path.exists():
                raise ValueError(f"fetch.archive={self._address!r}: {part.name} is in its SHA256SUMS, but not there")
            return self._checked(path, part)
        folder = self._folder / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        path, partial = folder / part.name, folder / f"{part.name}.part"
        if path.exists():
            return path  # checked before it got its name
        place = f"resolve/{self._commit}/" if self._commit else ""
        url = f"{self._address}/{place}{quote(part.name)}"
        for attempt in (1, 2):
            download(url, partial, self._transfer, size=part.size, title=part.name)
            if (found := _sha256(partial, part.name)) == part.sha256:
                partial.rename(path)
                discard(partial)
                return path
            discard(partial)
            if attempt == 2:
                raise ValueError(f"{url}: expected sha256 {part.sha256}, found {found}, twice; see parts.json")
        raise AssertionError

    def _checked(self, path: Path, part: Part) -> Path:
        """A part that somebody else put here; its hash is computed once for the same size and time."""
        status = path.stat()
        mark = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": part.sha256}
        record = self._folder / "parts" / f"{part.name}.checked.json"
        if record.exists() and read_json(record) == mark:
            return path
        if (found := _sha256(path, part.name)) != part.sha256:
            raise ValueError(f"{path}: expected sha256 {part.sha256}, found {found}; copy it again")
        write_json(record, mark)
        return path

    def _drop(self, part: Part) -> None:
        """Delete a part that was downloaded here."""
        (self._folder / "parts" / part.name).unlink(missing_ok=True)

    def _members_path(self, part: Part) -> Path:
        return self._folder / "members" / f"{part.sha256[:16]}.txt"

    def _pinned(self) -> tuple[str | None, list[Part]]:
        """Commit (of a hub) and parts as they were when this folder first asked."""
        path = self._folder / "parts.json"
        pinned = read_json(path) if path.exists() else {}
        if self._address not in pinned:
            commit, parts = self._ask()
            if not parts:
                raise ValueError(f"fetch.archive={self._address!r}: no .tar or .tar.gz there")
            pinned[self._address] = {"commit": commit, "parts": [asdict(part) for part in parts]}
            write_json(path, pinned)
        found = pinned[self._address]
        return found["commit"], [Part(**part) for part in found["parts"]]

    def _ask(self) -> tuple[str | None, list[Part]]:
        if self._local is not None:
            sums = self._local / "SHA256SUMS"
            if not sums.exists():
                raise ValueError(
                    f"fetch.archive={self._address!r}: {sums} is missing; make it: sha256sum *.tar.gz > SHA256SUMS"
                )
            return None, _sums(sums.read_text(encoding="utf-8"), str(sums))
        place = urlsplit(self._address)
        if place.path.startswith("/datasets/"):
            api = f"{place.scheme}://{place.netloc}/api{place.path}"
            commit = str(_json(api, self._transfer)[0]["sha"])
            return commit, _tree(f"{api}/tree/{commit}?recursive=true", self._transfer)
        url = f"{self._address}/SHA256SUMS"
        response = _get(url, self._transfer)
        return None, _sums(response.text, url)


def _tree(url: str, transfer: Transfer) -> list[Part]:
    """Parts by the hub's list of files, page after page."""
    parts = []
    following: str | None = url
    while following:
        entries, response = _json(following, transfer)
        for entry in entries:
            if entry.get("type") == "file" and _PART.fullmatch(entry["path"]):
                if "lfs" not in entry:
                    raise ValueError(f"{url}: states no sha256 of {entry['path']}")
                parts.append(Part(entry["path"], int(entry["size"]), str(entry["lfs"]["oid"])))
        following = response.links.get("next", {}).get("url")
    return sorted(parts, key=lambda part: part.name)


def _sums(text: str, where: str) -> list[Part]:
    """Parts by lines of sha256sum."""
    parts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = re.fullmatch(r"([0-9a-fA-F]{64})[ *]+(\S.*)", line.strip())
        if found is None or "/" in found[2]:
            raise ValueError(f"{where}:{number}: expected <sha256>  <name>, found {line!r}")
        if _PART.fullmatch(found[2]):
            parts.append(Part(found[2], None, found[1].lower()))
    return sorted(parts, key=lambda part: part.name)


def _json(url: str, transfer: Transfer) -> tuple[Any, requests.Response]:
    response = _get(url, transfer)
    try:
        return response.json(), response
    except ValueError:
        raise ValueError(f"{url}: expected the hub's JSON, found {response.text[:80]!r}; see fetch.archive") from None


def _get(url: str, transfer: Transfer) -> requests.Response:
    proxies = {"http": transfer.proxy, "https": transfer.proxy} if transfer.proxy else None
    try:
        response = requests.get(url, timeout=transfer.timeout_s, proxies=proxies)
        response.raise_for_status()
    except requests.exceptions.RequestException as error:
        raise ValueError(f"{url}: cannot be read ({error}); see fetch.archive") from None
    return response


def _sha256(path: Path, title: str) -> str:
    digest = hashlib.sha256()
    with (
        path.open("rb") as stream,
        tqdm(
            total=path.stat().st_size, desc=f"checking {title}", unit="B", unit_scale=True, disable=None, leave=False
        ) as bar,
    ):
        for chunk in _chunks(stream):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _chunks(stream: Any) -> Iterable[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk
