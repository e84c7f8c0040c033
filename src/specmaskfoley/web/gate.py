"""What every request passes first: how large it may be, what the server fetches (nothing) and what the browser may."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOST_WORDS = 1 << 20
"""Bytes of a request that is no upload."""
_SLACK = 1 << 16
"""What an upload's form adds to its file."""

# Whatever a page or an upload says, the browser asks this host alone.
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


class Gate:
    """ASGI middleware.

    Args:
        max_upload: bytes of a file.
    """

    def __init__(self, app: App, *, max_upload: int) -> None:
        self._app, self._max_upload = app, max_upload

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
                # Answered before its end: on a line that stays open the rest would be taken, were it without end.
                close = [_CLOSE] if unread else []
                message = {**message, "headers": [*message["headers"], *_HEADERS, *close]}
            await send(message)

        if "/file=http" in path.lower() or "/proxy=" in path:  # the server would fetch it
            await _refuse(send_guarded, 403, "This server fetches nothing.")
            return
        most = self._max_upload + _SLACK if path.endswith("/upload") else _MOST_WORDS
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:16]) > most:
            await _refuse(send_guarded, 413, f"At most {most} bytes are taken.")
            return
        if path.endswith("/upload"):
            try:
                await self._app(scope, _bounded(receive_watched, most), send_guarded)
            except ClientDisconnect:
                if unread:  # not the client: `_bounded` had enough
                    await _refuse(send_guarded, 413, f"At most {most} bytes are taken.")
            return
        body = await _body(receive_watched, most)
        if body is None:
            await _refuse(send_guarded, 413, f"At most {most} bytes are taken.")
        elif _asks_elsewhere(body):
            await _refuse(send_guarded, 403, "This server fetches nothing.")
        else:
            await self._app(scope, _again(body, receive_watched), send_guarded)


def _bounded(receive: Receive, most: int) -> Receive:
    """What is received, and an early end of it where it is more than was promised."""
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
    """Whether a request names a file by a web address, which Gradio would download, or nests without end."""
    try:
        todo = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # no JSON, and so nothing that names a file
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if str(item.get("path", "")).strip().lower().startswith("http"):
                return True
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return False


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
