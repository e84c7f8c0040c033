"""A stand-in for a video site: small videos under any id, and every kind of trouble, decided by the id alone."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from specmaskfoley.media.writing import write_video

RATE, FPS = 16000, 12.5
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

KINDS = {
    # what the server does: what becomes of the clip (state, words of its reason), and how many of a hundred
    "ordinary": ("ready", "", 44),
    "slow": ("ready", "", 8),
    "throttled_once": ("ready", "", 8),
    "reset_once": ("ready", "", 8),
    "unavailable_once": ("ready", "", 6),
    "silent": ("silent", "dBFS is below", 3),
    "no_sound": ("no_audio", "no sound track", 3),
    "brief": ("short", "less than prepare.min_duration_s", 3),
    "always_reset": ("failed", "", 3),
    "always_500": ("failed", "HTTP Error 500", 2),
    "gone": ("removed", "HTTP Error 404", 6),
    "wrong_bytes": ("corrupt", "", 3),
    "empty": ("corrupt", "", 3),
}


def kind_of(youtube_id: str) -> str:
    """By the id's last two letters."""
    place = (LETTERS.index(youtube_id[-2]) * 64 + LETTERS.index(youtube_id[-1])) % 100
    for kind, (_, _, share) in KINDS.items():
        if place < share:
            return kind
        place -= share
    raise AssertionError(youtube_id)


def make_ids(count: int, seed: int = 0) -> list[str]:
    """Random YouTube ids; every tenth begins with a dash, every eleventh holds an underscore after it."""
    random_ = random.Random(seed)
    ids: dict[str, None] = {}
    while len(ids) < count:
        letters = random_.choices(LETTERS, k=11)
        if len(ids) % 10 == 0:
            letters[0] = "-"
        if len(ids) % 11 == 0:
            letters[1] = "_"
        ids["".join(letters)] = None
    return list(ids)


class VideoServer:
    """Serves until `close`; `requests` counts them by kind."""

    def __init__(self, folder: Path, duration_s: float = 4.0, port: int = 0) -> None:
        self.videos = _render(folder, duration_s)
        self.requests: Counter[str] = Counter()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._mutex = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        """For fetch.youtube."""
        return f"http://127.0.0.1:{self.port}/{{youtube_id}}.mp4"

    def ordinary(self, youtube_id: str) -> str:
        """Which of the ordinary videos an id has."""
        return f"ordinary{LETTERS.index(youtube_id[2]) % 4}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805, the class below has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, body: bool) -> None:
                with contextlib.suppress(OSError):  # the client is gone
                    server._answer(self, body)

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        request.close_connection = True
        youtube_id = request.path.strip("/").removesuffix(".mp4")
        kind = kind_of(youtube_id)
        by_ffmpeg = "Lavf" in request.headers.get("User-Agent", "") or "Range" in request.headers
        with self._mutex:
            self.requests[kind] += 1
            self._seen[kind, youtube_id] += 1
            times = self._seen[kind, youtube_id]
        if kind == "throttled_once" and times == 1:
            return self._status(request, 429, {"Retry-After": "0"})
        if kind == "unavailable_once" and times <= 2:
            return self._status(request, 503)
        if kind == "gone":
            return self._status(request, 404)
        if kind == "always_500":
            return self._status(request, 500)
        content = self.videos.get(kind, self.videos[self.ordinary(youtube_id)])
        reset = kind == "always_reset" or (kind == "reset_once" and by_ffmpeg and times <= 3)
        self._send(request, content, body, reset=reset, slow=kind == "slow")

    def _status(self, request: BaseHTTPRequestHandler, code: int, headers: dict[str, str] | None = None) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": "0", "Connection": "close", **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()

    def _send(self, request: BaseHTTPRequestHandler, content: bytes, body: bool, *, reset: bool, slow: bool) -> None:
        place = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        first = int(place[1]) if place else 0
        part = content[first:]
        request.send_response(206 if place else 200)
        if place:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Type", "video/mp4")
        request.send_header("Content-Length", str(len(part)))
        request.send_header("Connection", "close")
        request.end_headers()
        if not body:
            return
        if reset:
            part = part[: len(part) // 3]
        for begin in range(0, len(part), 4096) if slow else (0,):
            request.wfile.write(part[begin : begin + 4096] if slow else part)
            if slow:
                time.sleep(0.01)


def _render(folder: Path, duration_s: float) -> dict[str, bytes]:
    """Videos by kind, with a moving square and a tone that differs."""
    made = {}
    kinds = {f"ordinary{number}": number for number in range(4)} | {"silent": 4, "no_sound": 5, "brief": 6}
    for kind, number in kinds.items():
        seconds = 1.5 if kind == "brief" else duration_s
        frames = np.zeros((round(seconds * FPS), 48, 64, 3), np.uint8)
        for index, frame in enumerate(frames):
            left = (3 * index + 11 * number) % 48
            frame[8:24, left : left + 16] = 60 + 40 * (number % 5)
        wave = 0.5 * np.sin(np.arange(round(seconds * RATE)) * (0.05 + 0.02 * number))
        wave = {"silent": wave * 0, "no_sound": None}.get(kind, wave)
        path = folder / f"{kind}.mp4"
        write_video(path, frames, FPS, wave, RATE)
        made[kind] = path.read_bytes()
    return made | {"wrong_bytes": b"<html>" + bytes(range(256)) * 40, "empty": b""}


def write_lists(folder: Path, ids: list[str], start_s: int = 1) -> None:
    """train.tsv, val.tsv and test.tsv: eight, one and one of ten ids."""
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, youtube_id in enumerate(ids):
        split = {8: "val", 9: "test"}.get(number % 10, "train")
        label = ("playing violin, fiddle", 'dog "barking"', "a bell")[number % 3]
        splits[split].append(f"{youtube_id}_{start_s:06d}\t{label}\n")
    for split, lines in splits.items():
        (folder / f"{split}.tsv").write_text("id\tlabel\n" + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    print(json.dumps(Counter(kind_of(name) for name in make_ids(500)), indent=1))
