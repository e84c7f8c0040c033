"""Source `archive`: VGGSound as tar parts, from a hub, a plain web server or a directory.

Of a hub the commit is pinned at the first run, with the size and sha256 of every part (`parts.json` in fetch.folder);
elsewhere a file SHA256SUMS beside the parts states them. One part at a time is downloaded, checked, read through and
deleted; the ids in it are kept in `members/`, so that a part without an open clip is never downloaded again.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from specmaskfoley.clips.fetched import FetchedClips
from specmaskfoley.clips.vggsound import transfer_of, wanted
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import read_json, show_size, write_json
from specmaskfoley.storage.tables import LISTED
from specmaskfoley.weights.download import PASSING, Transfer, download_checked, no_connection
from specmaskfoley.weights.records import WrongFileError, hashes

_MEMBER = re.compile(r"(?:.*/)?([A-Za-z0-9_-]{11}_[0-9]{6})\.mp4")
_PART = re.compile(r".*\.(?:tar|tar\.gz|tgz)")
_CHUNK = 1 << 20
_LARGEST = 1 << 28  # bytes; a clip has some millions, and is held in memory


class _Header(tarfile.TarInfo):
    """Where a header is wrong or absent, tarfile takes the archive to end there; here that is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from None
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"it ends without an end mark at byte {archive.offset}") from None


@dataclass(frozen=True)
class TarPart:
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
        OSError: a download makes no progress; the next run continues it.
    """
    fetch = params.fetch
    with FetchedClips(Path(fetch.folder), source="archive", again=fetch.again) as store:
        archive = _Archive(params, store)
        universe = None
        if fetch.parts is not None:
            for part in archive.parts:
                archive.members(part)
            universe = {clip_id for part in archive.parts for clip_id in archive.members(part)}
        items = wanted(params, universe)
        open_ids = {clip.clip_id for clip in store.to_fetch(item.clip for item in items if item.state == LISTED)}
        with store.unfinished() as scratch:
            archive.extract(open_ids, scratch)
        reason = archive.why_missing() if open_ids else ""
        for clip_id in sorted(open_ids):
            store.conclude(clip_id, "missing", reason)
        rows = store.rows(items)
    return rows


class _Archive:
    """The parts that are to be read."""

    def __init__(self, params: Params, store: FetchedClips) -> None:
        fetch = params.fetch
        self._address, self._store, self._folder = fetch.archive.rstrip("/"), store, store.folder
        self._transfer = transfer_of(fetch)
        self._local = _directory(self._address)
        self._commit, known = self._pinned()
        if unknown := sorted(set(fetch.parts or ()) - {part.name for part in known}):
            raise ValueError(
                f"fetch.parts={', '.join(unknown)}: not in {self._address}, which has "
                f"{', '.join(part.name for part in known)}"
            )
        self.parts = [part for part in known if fetch.parts is None or part.name in fetch.parts]
        self._damage: dict[str, str] = {}

    def members(self, part: TarPart) -> list[str]:
        """The ids in a part, which is downloaded if it has not been read yet."""
        path = self._members_path(part)
        if not path.exists():
            self._note(part, [name for name, _ in self._read(part, ())])
        return list(read_json(path)["ids"])

    def why_missing(self) -> str:
        """The reason for a clip that was not found in any part."""
        notes = [(part.name, read_json(self._members_path(part))["damage"]) for part in self.parts]
        damaged = [f"; {name} is damaged inside ({damage})" for name, damage in notes if damage]
        return f"in none of the {len(self.parts)} parts{''.join(damaged)}"

    def extract(self, open_ids: set[str], scratch: Path) -> None:
        """Extract these clips from the parts that hold them, or may hold them; found ids are removed from the set."""
        for part in self.parts:
            known = self._members_path(part).exists()
            if open_ids and not (known and open_ids.isdisjoint(self.members(part))):
                self._extract_part(part, open_ids, scratch)
            self._drop(part)

    def _extract_part(self, part: TarPart, open_ids: set[str], scratch: Path) -> None:
        names, taken = [], 0
        for name, content in self._read(part, open_ids):
            names.append(name)
            if content is not None:
                file = scratch / f"{name}.mp4"
                file.write_bytes(content)
                self._store.take_in(name, file)
                open_ids.discard(name)
                taken += 1
        self._note(part, names)
        print(f"clips: {part.name}, {self._place(part)}: {taken} of {len(names)} clips taken", flush=True)

    def _read(self, part: TarPart, open_ids: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
        """Id of every clip in a part, with its content if it is open. Where the part is damaged, reading ends with a
        message."""
        path = self._fetch(part)
        size, title = path.stat().st_size, f"reading {part.name}"
        with (
            path.open("rb") as raw,
            tqdm.wrapattr(raw, "read", total=size, desc=title, disable=None, leave=False) as watched,
        ):
            try:
                with tarfile.open(fileobj=_inflated(path, watched), mode="r|", tarinfo=_Header) as tar:
                    for member in tar:
                        # Only the last part of a name counts, and only of plain files: nothing is written elsewhere.
                        plain = member.isreg() and not member.issparse() and member.size <= _LARGEST
                        found = _MEMBER.fullmatch(member.name) if plain else None
                        stored = tar.extractfile(member) if found and found[1] in open_ids else None
                        if found:
                            yield found[1], stored.read() if stored else None
                    while tar.fileobj.read(_CHUNK):  # to gzip's checksum
                        pass
            except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's own
                self._damage[part.name] = str(error)
                print(f"clips: {part.name} is damaged inside ({error}); clips of it may be lost", flush=True)

    def _fetch(self, part: TarPart) -> Path:
        """The part on this disk, checked."""
        if self._local is not None:
            path = self._local / part.name
            if not path.exists():
                raise ValueError(f"fetch.archive={self._address!r}: {part.name} is in its SHA256SUMS, but not there")
            return self._checked(path, part)
        path = self._part_path(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return path  # checked before it got its name
        place = f"resolve/{self._commit}/" if self._commit else ""
        url = f"{self._address}/{place}{quote(part.name)}"
        size = f" ({show_size(part.size)})" if part.size else ""
        print(f"clips: downloading {part.name}{size}, {self._place(part)}", flush=True)
        try:
            download_checked(
                url, path, self._transfer, partial(_check, part=part, where=url), size=part.size, title=part.name
            )
        except WrongFileError as error:
            raise ValueError(
                f"{error}; if the archive is meant to have changed, remove {self._folder / 'parts.json'}"
            ) from None
        return path

    def _checked(self, path: Path, part: TarPart) -> Path:
        """A part in a directory of the user; hashed once for the same size and modification time."""
        status = path.stat()
        mark = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": part.sha256}
        record = self._folder / "parts" / f"{part.name}.checked.json"
        if record.exists() and read_json(record) == mark:
            return path
        try:
            _check(path, part, str(path))
        except WrongFileError as error:
            raise ValueError(
                f"{error}; copy it again, or, if it is meant to be another, remove {self._folder / 'parts.json'}"
            ) from None
        write_json(record, mark)
        return path

    def _place(self, part: TarPart) -> str:
        return f"part {self.parts.index(part) + 1} of {len(self.parts)}"

    def _drop(self, part: TarPart) -> None:
        """Delete a part that was downloaded here."""
        self._part_path(part).unlink(missing_ok=True)

    def _note(self, part: TarPart, names: Iterable[str]) -> None:
        """Keep the ids in a part."""
        write_json(self._members_path(part), {"damage": self._damage.get(part.name, ""), "ids": sorted(set(names))})

    def _part_path(self, part: TarPart) -> Path:
        # With the hash: parts of other archives have the same names. Without directories: the hub's may be any.
        return self._folder / "parts" / f"{part.sha256[:16]}-{part.name.rsplit('/', 1)[-1]}"

    def _members_path(self, part: TarPart) -> Path:
        return self._folder / "members" / f"{part.sha256[:16]}.json"

    def _pinned(self) -> tuple[str | None, list[TarPart]]:
        """Commit (of a hub) and parts, as they were at the first run in this folder."""
        path = self._folder / "parts.json"
        pinned = read_json(path) if path.exists() else {}
        known = [TarPart(**part) for part in pinned.get(self._address, {}).get("parts", ())]
        if not known or self._local is not None:
            commit, now = self._ask()
            parts = self._joined(known, now)
            if not parts:
                raise ValueError(f"fetch.archive={self._address!r}: no .tar or .tar.gz there")
            if parts != known:
                pinned[self._address] = {"commit": commit, "parts": [asdict(part) for part in parts]}
                write_json(path, pinned)
        found = pinned[self._address]
        return found["commit"], [TarPart(**part) for part in found["parts"]]

    def _joined(self, known: list[TarPart], now: list[TarPart]) -> list[TarPart]:
        """The parts known before and new ones; the content of a known part must not have changed."""
        before = {part.name: part for part in known}
        for part in now:
            if (old := before.get(part.name, part)).sha256 != part.sha256:
                raise ValueError(
                    f"fetch.archive={self._address!r}: {part.name} had sha256 {old.sha256}, has {part.sha256}; if it "
                    f"is meant to be another, remove {self._folder / 'parts.json'}"
                )
        if known and (new := [part.name for part in now if part.name not in before]):
            print(f"clips: new parts: {', '.join(new)}; clips missing before: fetch.again=[missing]", flush=True)
        return sorted({**before, **{part.name: part for part in now}}.values(), key=lambda part: part.name)

    def _ask(self) -> tuple[str | None, list[TarPart]]:
        if self._local is not None:
            sums = self._local / "SHA256SUMS"
            if not sums.exists():
                raise ValueError(
                    f"fetch.archive={self._address!r}: {sums} is missing; make it: sha256sum *.tar.gz > SHA256SUMS"
                )
            return None, _sums(sums.read_text(encoding="utf-8"), str(sums))
        place = urlsplit(self._address)
        if re.fullmatch(r"/datasets/[^/]+/[^/]+", place.path):
            api = f"{place.scheme}://{place.netloc}/api{place.path}"
            about = _get(api, self._transfer, may_be_absent=True)
            if about is not None:
                commit = str(_json(about)["sha"])
                return commit, _tree(f"{api}/tree/{commit}?recursive=true", self._transfer)
        url = f"{self._address}/SHA256SUMS"
        return None, _sums(_get(url, self._transfer).text, url)


def _tree(url: str, transfer: Transfer) -> list[TarPart]:
    """Parts by the hub's list of files, page after page."""
    parts = []
    following: str | None = url
    while following:
        response = _get(following, transfer)
        for entry in _json(response):
            if entry.get("type") == "file" and _PART.fullmatch(entry["path"]):
                if "lfs" not in entry:
                    raise ValueError(f"{url}: states no sha256 of {entry['path']}")
                parts.append(TarPart(entry["path"], int(entry["size"]), str(entry["lfs"]["oid"])))
        following = response.links.get("next", {}).get("url")
    return sorted(parts, key=lambda part: part.name)


def _sums(text: str, where: str) -> list[TarPart]:
    """Parts by lines of sha256sum."""
    parts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = re.fullmatch(r"([0-9a-fA-F]{64})[ *]+(\S.*)", line.strip())
        if found is None or "/" in found[2]:
            raise ValueError(f"{where}:{number}: expected <sha256>  <name>, found {line!r}")
        if _PART.fullmatch(found[2]):
            parts.append(TarPart(found[2], None, found[1].lower()))
    return sorted(parts, key=lambda part: part.name)


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ValueError(
            f"{response.url}: expected the hub's JSON, found {response.text[:80]!r}; see fetch.archive"
        ) from None


@overload
def _get(url: str, transfer: Transfer) -> requests.Response: ...
@overload
def _get(url: str, transfer: Transfer, *, may_be_absent: bool) -> requests.Response | None: ...
def _get(url: str, transfer: Transfer, *, may_be_absent: bool = False) -> requests.Response | None:
    """The answer; None for a 404 if `may_be_absent`. Passing failures are tried `retries` times more."""
    retry = Retry(
        transfer.retries,
        connect=min(transfer.retries, transfer.first_retries),
        backoff_factor=transfer.backoff_s,
        status_forcelist=PASSING,
    )
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            response = session.get(url, timeout=transfer.timeouts, proxies=transfer.proxies)
        if may_be_absent and response.status_code == 404:
            return None
        response.raise_for_status()
    except requests.exceptions.RequestException as error:
        reason = no_connection(error) or error
        raise ValueError(f"{url}: cannot be read ({reason}); see fetch.archive and fetch.proxy") from None
    return response


def _directory(address: str) -> Path | None:
    """The directory that fetch.archive names by its path or a file: address, if it does."""
    if address.startswith("file:"):
        return Path(unquote(urlsplit(address).path))
    return None if "://" in address else Path(address)


def _inflated(path: Path, stream: Any) -> Any:
    """The tar in a part. tarfile's own gzip passes over checksums, and over all but the first of joined gzip files."""
    with path.open("rb") as beginning:
        packed = beginning.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(fileobj=stream) if packed else stream


def _check(path: Path, part: TarPart, where: str) -> None:
    if (found := hashes(path, {"sha256"})["sha256"]) != part.sha256:
        raise WrongFileError(f"{where}: expected sha256 {part.sha256}, found {found}")
