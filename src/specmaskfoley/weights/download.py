"""Download one file by HTTP, continuing where an earlier attempt or a killed process stopped.

The bytes are appended to a part file. Beside it is kept what identifies the file on the server (entity tag, date,
length), so that parts of two different files are never joined.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

from specmaskfoley.storage.files import show_size, write_json
from specmaskfoley.weights.records import WrongFileError

_CHUNK = 1 << 16
_LONGEST_WAIT_S = 60.0
_CONNECT_S = 10.0
NO_CONNECTION = (NewConnectionError, ConnectTimeoutError, ProxyError)
"""Causes of an error for which no server is reached."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers after which another attempt may succeed."""

_TOKEN_HOST = "huggingface.co"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Transfer:
    """How to download.

    `mirror` replaces the `https://` of an address, or (as a mapping) the beginnings of addresses. `retries` counts
    attempts in a row without progress; waits between them start at `backoff_s` and double. A server that has not
    answered yet is tried `first_retries` times more at most: waiting for a network that is not there is of no use.
    """

    mirror: str | Mapping[str, str] | None = None
    proxy: str | None = None
    retries: int = 5
    first_retries: int = 2
    backoff_s: float = 1.0
    timeout_s: float = 60.0

    @property
    def proxies(self) -> dict[str, str] | None:
        """For requests."""
        return {"http": self.proxy, "https": self.proxy} if self.proxy else None

    @property
    def timeouts(self) -> tuple[float, float]:
        """For requests: seconds to connect, and without any byte."""
        return min(_CONNECT_S, self.timeout_s), self.timeout_s

    def host(self, url: str) -> str:
        """The server that `url` is downloaded from."""
        return urlsplit(self.address(url)).netloc

    def address(self, url: str) -> str:
        """The address to download `url` from."""
        if isinstance(self.mirror, str):
            return self.mirror.rstrip("/") + "/" + re.sub("^https?://", "", url)
        fitting = [prefix for prefix in self.mirror or () if url.startswith(prefix)]
        if self.mirror and fitting:
            longest = max(fitting, key=len)
            return self.mirror[longest] + url.removeprefix(longest)
        return url


@dataclass(frozen=True)
class _Version:
    """What identifies one version of a file on a server."""

    url: str
    etag: str | None
    last_modified: str | None
    length: int | None

    @classmethod
    def of(cls, url: str, response: requests.Response, length: int | None) -> _Version:
        return cls(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), length)

    @classmethod
    def read(cls, path: Path) -> _Version | None:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # the part is of unknown origin: the download starts over

    @property
    def condition(self) -> str | None:
        """For If-Range, which takes strong entity tags and dates only."""
        return self.etag if self.etag and self.etag.startswith('"') else self.last_modified

    def contradicts(self, other: _Version) -> bool:
        """Whether they differ in anything that both state; an answer to If-Range may leave most of it out."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


class UnreachableError(OSError):
    """No connection to a host can be made."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} cannot be reached ({reason})")
        self.host, self.reason = host, reason


class _PassingError(Exception):
    """The attempt failed, and another may succeed; `wait_s` is what the server asks for.

    `connected`: whether the server was reached.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.wait_s, self.connected = wait_s, connected


def download_checked(
    url: str,
    target: Path,
    transfer: Transfer,
    check: Callable[[Path], Found],
    *,
    size: int | None = None,
    title: str = "",
) -> Found:
    """Download into `<target>.part`, and give it its name when it is the right file.

    A wrong file is downloaded once more from the start: a broken proxy or an edited part file are likelier than a new
    file on the server.

    Args:
        check: raises WrongFileError if the downloaded file is not the right one; its result is returned.

    Raises:
        WrongFileError: from `check` or `download`, for the second time; the part file is deleted.
        ValueError, OSError: see `download`.
    """
    part = target.with_name(f"{target.name}.part")
    attempts = 2
    while True:
        try:
            download(url, part, transfer, size=size, title=title)
            found = check(part)
            break
        except WrongFileError as error:
            discard(part)
            attempts -= 1
            if not attempts:
                raise WrongFileError(f"{error}, twice") from None
    os.replace(part, target)
    discard(part)
    return found


def download(url: str, part: Path, transfer: Transfer, *, size: int | None = None, title: str = "") -> None:
    """Complete `part` with the bytes at `url`; after an error or a kill, the next call continues.

    Raises:
        ValueError: the server refuses the file, or the disk has no room for it.
        WrongFileError: the server's file is not `size` bytes long.
        UnreachableError: there is no connection to the server.
        OSError: `transfer.retries` attempts in a row made no progress; the next call goes on from there.
    """
    address, failures, furthest, connected = transfer.address(url), 0, _size(part), False
    with requests.Session() as session:
        while True:
            try:
                return _attempt(session, address, part, transfer, size, title)
            except _PassingError as error:
                # Progress is what lies beyond the furthest point: a server that always breaks off and
                # never resumes must not keep us here.
                failures = failures + 1 if _size(part) <= furthest else 0
                furthest = max(furthest, _size(part))
                connected = connected or error.connected
                retries = transfer.retries if connected else min(transfer.retries, transfer.first_retries)
                if failures > retries and not connected:
                    raise UnreachableError(transfer.host(url), str(error)) from None
                if failures > retries:
                    raise OSError(
                        f"{address}: gave up after {failures} attempts without progress ({error}); "
                        f"{show_size(_size(part))} are kept, the next run goes on from there"
                    ) from None
                wait = min(transfer.backoff_s * 2**failures, _LONGEST_WAIT_S) * random.uniform(0.5, 1.5)
                wait = max(wait, min(error.wait_s, _LONGEST_WAIT_S))
                told = f"{title or address}: {error}; again in {wait:.0f} s (attempt {failures + 1} of {retries + 1})"
                tqdm.write(told, file=sys.stderr)
                time.sleep(wait)


def no_connection(error: requests.exceptions.RequestException) -> str:
    """Why no connection could be made, in a few words; empty if the error is another one."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if not isinstance(cause, NO_CONNECTION):
        return ""
    return str(cause).partition(": ")[2] or str(cause)


def version_path(part: Path) -> Path:
    """The file that says where a part file comes from."""
    return part.with_name(part.name + ".json")


def discard(part: Path) -> None:
    """Delete a part file."""
    part.unlink(missing_ok=True)
    version_path(part).unlink(missing_ok=True)


def _attempt(
    session: requests.Session, address: str, part: Path, transfer: Transfer, size: int | None, title: str
) -> None:
    known, offset = _Version.read(version_path(part)), _size(part)
    if known is None or known.url != address or (known.length is not None and offset > known.length):
        known, offset = None, 0
    elif offset and offset == known.length:
        return
    headers = {"Accept-Encoding": "identity", **_authorization(address)}
    if known and offset and known.condition:
        headers |= {"Range": f"bytes={offset}-", "If-Range": known.condition}
    try:
        with session.get(
            address,
            headers=headers,
            stream=True,
            timeout=transfer.timeouts,
            proxies=transfer.proxies,
        ) as response:
            _receive(response, address, part, known, size, title)
    except requests.exceptions.SSLError as error:
        raise ValueError(f"{address}: the server's certificate is not trusted ({error})") from None
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        trouble = no_connection(error)
        raise _PassingError(trouble or str(error), connected=not trouble) from None
    except requests.exceptions.RequestException as error:
        raise ValueError(f"{address}: cannot be downloaded ({error})") from None


def _receive(
    response: requests.Response, address: str, part: Path, known: _Version | None, size: int | None, title: str
) -> None:
    """Append the body to the part if it continues it, else start the part over."""
    if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{_size(part)}":
        return  # it was complete already, but the server had not stated its length
    offset, length = _placed(response, address, part)
    found = _Version.of(address, response, length)
    if offset and (known is None or known.contradicts(found) or offset != _size(part)):
        discard(part)
        raise _PassingError("the file changed on the server; starting over")
    if size is not None and length not in (None, size):
        raise WrongFileError(f"{address}: expected {size} bytes, the server has {length}")
    _check_space(part, (length or size or 0) - offset)
    if not offset:
        part.unlink(missing_ok=True)
        write_json(version_path(part), asdict(found))
    bar = tqdm(
        total=length,
        initial=offset,
        desc=title,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None,
        leave=False,
    )
    with bar, part.open("ab") as stream:
        for chunk in response.iter_content(_CHUNK):
            stream.write(chunk)
            stream.flush()  # a kill loses nothing that has arrived
            bar.update(len(chunk))
        os.fsync(stream.fileno())
    if length is not None and _size(part) < length:
        raise _PassingError(f"the connection ended after {_size(part)} of {length} bytes")


def _placed(response: requests.Response, address: str, part: Path) -> tuple[int, int | None]:
    """Offset of the body in the file, and the length of the file, if the server states it."""
    status, headers = response.status_code, response.headers
    if status == 416:
        discard(part)
        raise _PassingError("the part does not fit the server's file; starting over")
    if status in PASSING:
        asked = headers.get("Retry-After", "")
        raise _PassingError(f"HTTP {status} {response.reason}", float(asked) if asked.isdigit() else 0.0)
    if status not in (200, 206):
        raise ValueError(f"{address}: HTTP {status} {response.reason}{_advice(status, address)}")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError(f"{address}: the server compresses the file, though it was asked not to; set weights.mirror")
    if status == 200:
        length = headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if place is None:
        discard(part)
        raise _PassingError("the server does not say which bytes it sends; starting over")
    return int(place[1]), None if place[2] == "*" else int(place[2])


def _advice(status: int, address: str) -> str:
    if status in (401, 403) and urlsplit(address).hostname == _TOKEN_HOST:
        return "; accept the model's terms on its page, and set the environment variable HF_TOKEN"
    return "; it may have moved: see `page` in weights.lock.yaml, or set weights.mirror" if status in (404, 410) else ""


def _authorization(address: str) -> dict[str, str]:
    """The hub's token, for the hub alone (requests drops it when the hub redirects to another host)."""
    token, parts = os.environ.get("HF_TOKEN"), urlsplit(address)
    to_hub = parts.scheme == "https" and parts.hostname == _TOKEN_HOST
    return {"Authorization": f"Bearer {token}"} if token and to_hub else {}


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise ValueError(
            f"{part.parent}: needs {show_size(needed)} for {part.name}, has {show_size(free)} free; make room, or "
            "choose another disk with weights.folder or fetch.folder"
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
