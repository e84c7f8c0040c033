"""A real HTTP server whose answers a test scripts, one after the other."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """How to answer one request; the fields left alone make a well-behaved server."""

    body: bytes | None = None  # None: the server's own
    etag: str | None = '"one"'
    last_modified: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None  # bytes of the body after which the connection breaks
    ranges: bool = True
    heed_if_range: bool = True
    length: int | str | None = None  # another Content-Length than the true one; "none": not stated
    pause_s: float = 0.0  # between pieces of `piece` bytes
    piece: int = 1 << 16


class Web:
    """Counts what it sends. `script` holds the answers to the next requests, `usual` the one to all others.

    `files` are bodies by path; other paths have `body`.
    """

    def __init__(self, body: bytes) -> None:
        self.body, self.usual = body, Answer()
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path: str = "file.pth") -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/{path}"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of every request so far."""
        return [headers.get("range") for _, headers in self.requests]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                web.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                web._answer(self, web.script.pop(0) if web.script else web.usual)

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, answer: Answer) -> None:
        body = self.files.get(request.path, self.body) if answer.body is None else answer.body
        headers = dict(answer.headers)
        if answer.etag:
            headers["ETag"] = answer.etag
        if answer.last_modified:
            headers["Last-Modified"] = answer.last_modified
        status, begin = answer.status or 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        unchanged = condition in (None, answer.etag, answer.last_modified) or not answer.heed_if_range
        if answer.status is None and asked and answer.ranges and unchanged:
            begin, status = int(asked[1]), 206
            if begin >= len(body):
                status, headers["Content-Range"], begin = 416, f"bytes */{len(body)}", len(body)
            else:
                headers.setdefault("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        payload = body[begin:]
        if answer.length is None:
            headers["Content-Length"] = str(len(payload))
        elif answer.length != "none":
            headers["Content-Length"] = str(answer.length)
        request.close_connection = True
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Connection", "close")
        request.end_headers()
        self._send(request, payload[: answer.drop_after], answer)

    def _send(self, request: BaseHTTPRequestHandler, payload: bytes, answer: Answer) -> None:
        try:
            for first in range(0, len(payload), answer.piece):
                piece = payload[first : first + answer.piece]
                request.wfile.write(piece)
                self.sent += len(piece)
                time.sleep(answer.pause_s)
        except OSError:
            pass  # the client went away, which is what some tests are about
