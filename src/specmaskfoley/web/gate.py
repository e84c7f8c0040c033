"""Limits for every request: who may send it, its size, no web addresses to fetch, and what the browser may load."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOST_WORDS = 1 << 20
"""Bytes of a request that is not an upload."""
_SLACK = 1 << 16
"""Bytes that an upload's form adds to its file."""

# Whatever a page or an upload contains, the browser asks no other host.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_CLOSE = (b"connection", b"close")
_HARMLESS = ("GET", "HEAD", "OPTIONS")


class Gate:
    """ASGI middleware.

    Args:
        max_upload: bytes of an upload, besides what its form adds.
        uploads: how the paths of uploads end.
        refusal: the response of a sentence and a status.
    """

    def __init__(
        self,
        app: App,
        *,
        max_upload: int,
        uploads: str = "/upload",
        refusal: Callable[[str, int], App] = PlainTextResponse,
    ) -> None:
        self._app, self._max_upload, self._uploads = app, max_upload, uploads
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        unread = True

        async def receive_watched() -> MutableMapping[str, Any]:
            nonlocal unread
            message = await receive()
            unread = bool(message.get("more_body", False))
            return message

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                # Answered before the end of the request: if the connection stayed open, an endless rest would be read.
                close = [_CLOSE] if unread else []
                # Without the name on the server's disk, the link says what a download is called.
                given = [
                    (name, value.split(b";")[0] if name == b"content-disposition" else value)
                    for name, value in message["headers"]
                ]
                message = {**message, "headers": [*given, *_HEADERS, *close]}
            await send(message)

        upload = path.endswith(self._uploads)
        most = self._max_upload + _SLACK if upload else _MOST_WORDS
        too_large = self._refusal(f"At most {most} bytes are accepted.", 413)
        foreign = self._refusal("This server fetches nothing.", 403)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if scope["method"] not in _HARMLESS and _of_another_site(headers):
            await self._refusal("Pages of other sites may not ask for this.", 403)(scope, receive, send_guarded)
        elif "/file=http" in path.lower() or "/proxy=" in path:  # the server would fetch it
            await foreign(scope, receive, send_guarded)
        elif not length.isdigit() or int(length[:16]) > most:
            await too_large(scope, receive, send_guarded)
        elif upload:
            try:
                await self._app(scope, _bounded(receive_watched, most), send_guarded)
            except ClientDisconnect:
                if unread:  # `_bounded` ended the upload, not the client
                    await too_large(scope, receive, send_guarded)
        elif (body := await _body(receive_watched, most)) is None:
            await too_large(scope, receive, send_guarded)
        elif _asks_elsewhere(body):
            await foreign(scope, receive, send_guarded)
        else:
            await self._app(scope, _again(body, receive_watched), send_guarded)


class Lock:
    """ASGI middleware that lets in who gives the password: HTTP Basic with any user name, or as a bearer token."""

    def __init__(self, app: App, *, password: str) -> None:
        self._app, self._expected = app, password.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._opens(dict(scope["headers"]).get(b"authorization", b"")):
            asks = {"WWW-Authenticate": 'Basic realm="SpecMaskFoley", charset="UTF-8"'}
            refused = JSONResponse({"detail": "The password is missing, or is another one."}, 401, asks)
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _opens(self, given: bytes) -> bool:
        scheme, _, said = given.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                said = base64.b64decode(said.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return secrets.compare_digest(said, self._expected)


def _of_another_site(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says that a page of another site sends this; what is no browser says nothing."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:  # to encrypted and local servers alone
        return site not in (b"same-origin", b"none")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


def _bounded(receive: Receive, most: int) -> Receive:
    """Receives at most so many bytes, then reports that the client is gone."""
    got = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return message if got <= most else {"type": "http.disconnect"}

    return bounded


async def _body(receive: Receive, most: int) -> bytes | None:
    """The whole of a request; None: too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    parts = [body]

    async def again() -> MutableMapping[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return again


def _asks_elsewhere(body: bytes) -> bool:
    """Whether a request names a file by a web address, which Gradio would download, or nests too deeply to check."""
    try:
        todo = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # not JSON, so it names no file
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if str(item.get("path", "")).strip().lower().startswith("http"):
                return True
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return False
