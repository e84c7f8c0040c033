"""A hundred hostile requests through the page's own HTTP interface: none is executed, leaves its folder or hangs."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests
import soundfile
from helpers.page_server import Server
from helpers.small_disk import small_disk
from helpers.untrained import write_noise
from helpers.web_client import Client, as_file

from specmaskfoley.media.writing import write_video

SHELL = [
    "$(touch {mark})",
    "`touch {mark}`",
    ";touch {mark};",
    "|touch {mark}",
    "a.mp4 && touch {mark}",
    "'\"; touch {mark} #",
]
NAMES = [
    "../../../../../../etc/passwd",
    "..\\..\\..\\windows\\win.ini",
    "/etc/passwd",
    "C:\\boot.ini",
    "....//....//escaped.mp4",
    "%2e%2e%2f%2e%2e%2fescaped.mp4",
    "~/escaped.mp4",
    "~root",
    "a\0b.mp4",
    "\r\nSet-Cookie: a=b\r\n.mp4",
    "x" * 5000 + ".mp4",
    "\N{RIGHT-TO-LEFT OVERRIDE}4pm.exe",
    "<img src=x onerror=alert(1)>.mp4",
    "-i.mp4",
    "--help",
    "file:///etc/passwd",
    "concat:a|b.mp4",
    "pipe:0",
    "http:__example.org_a.mp4",
    "CON",
    ".",
    "..",
    " ",
    "%s%s%n.mp4",
    "{{7*7}}${7*7}.mp4",
]
PATHS = [
    "/etc/passwd",
    "../../../../../../etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "/",
    "",
    "\0",
    "x" * 100_000,
    "http://127.0.0.1:{port}/fetched.mp4",
    "HTTPS://127.0.0.1:{port}/fetched.mp4",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/a",
    "concat:/etc/passwd|/etc/hosts",
    "data:video/mp4;base64,AAAA",
    "{uploads}/../sessions",
    "{uploads}/../../../../../etc/passwd",
    "{uploads}",
    "$(touch {mark})",
]
HUGE: list[dict[str, Any]] = [
    {"seed": 10**400},
    {"seed": -1},
    {"seed": 1e308},
    {"seed": None},
    {"seed": {"path": "/etc/passwd"}},
    {"seed": "1; touch {mark}"},
    {"candidates": 10**9},
    {"candidates": 0},
    {"candidates": 1.5},
    {"candidates": [2] * 1000},
    {"steps": 2**63},
    {"steps": -5},
    {"steps": "NaN"},
    {"scale": 1e309},
    {"scale": -0.001},
    {"scale": True},
    {"text": "x" * 100_000},
    {"text": "x" * 301},
    {"scale": "1e9"},
    {"keep": "yes; touch {mark}", "steps": 0},
]
SPANS: list[tuple[Any, Any, Any]] = [
    (1, 0.5, 1e308),  # to the end: the only one that is made
    (1, 5, 3),
    (1, -1, 2),
    (1, 1e9, 2e9),
    (1, None, None),
    (1, "0", "1; touch x"),
    (1, 0.5, 0.5),
    (99, 0, 1),
    (-1, 0, 1),
    (10**40, 0, 1),
    ([1], 0, 1),
    (None, 0, 1),
]


def files(good: bytes, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Contents that claim to be a video."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(300_000_000))
    yield "zip bomb", bomb.getvalue()
    yield "zlib bomb", zlib.compress(bytes(100_000_000), 9)
    yield "html", b"<!doctype html><script>fetch('/evil')</script>"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="x()"><image href="file:///etc/passwd"/></svg>'
    yield (
        "svg bomb",
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b'<!ENTITY b "&a;&a;&a;&a;">' * 50 + b"]><svg>&b;</svg>",
    )
    yield "hls of a local file", b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    yield "hls of a server", b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    yield "concat script", b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield "dash", b'<?xml version="1.0"?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>'
    yield "shell script", b"#!/bin/sh\ntouch /tmp/executed\n"
    yield "elf", b"\x7fELF" + os.urandom(4000)
    yield "pickle", b"cos\nsystem\n(S'touch executed'\ntR."
    yield "nothing", b""
    yield "one byte", b"\0"
    yield "noise", os.urandom(100_000)
    yield "a header and noise", good[:64] + os.urandom(50_000)
    yield "cut in the middle", good[: len(good) // 2]
    yield "sizes of boxes that lie", good[:32] + b"\xff\xff\xff\xffmoov" + good[40:]
    yield "ten hours in a header", hours(good)
    yield "a flood of boxes", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0\0\0\x08free" * 100_000
    yield "nested boxes", nested()
    yield (
        "gif, 65535 wide and high",
        b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
    )
    yield "png bomb", png(30_000, 30_000)
    yield "sound alone", sound(folder)
    yield "a pipe's name", b"pipe:0"


def hours(good: bytes) -> bytes:
    """The same video, whose headers promise ten hours."""
    content = bytearray(good)
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = content.find(box)
        assert at > 0
        content[at + offset : at + offset + 4] = (0x7FFFFFF0 if box == b"mdhd" else 36_000_000).to_bytes(4, "big")
    return bytes(content)


def nested() -> bytes:
    content = b""
    for _ in range(2000):
        content = (len(content) + 8).to_bytes(4, "big") + b"moov" + content
    return b"\0\0\0\x10ftypisom\0\0\0\0" + content


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 6, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + chunk(b"IEND", b"")
    )


def sound(folder: Path) -> bytes:
    soundfile.write(folder / "a.wav", np.zeros(16000), 16000)
    return (folder / "a.wav").read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_noise(tmp_path_factory.mktemp("good") / "clip.mp4", 1.0).read_bytes()


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[int, list[str]]]:
    """Another server on this machine: its port, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield listening.server_port, asked
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def watched(server: Server, tmp_path: Path, good: bytes) -> Iterator[Path]:
    """A place that a successful attack would touch; checks afterwards that the server is as it was."""
    mark = tmp_path / "executed"
    before = outside(server)
    yield mark
    assert not mark.exists()
    assert outside(server) == before, "a file was written outside"
    assert server.process.poll() is None
    client = server.client()
    assert client.make(client.uploaded(good)).startswith("Done: 1 take of 1.00 s")
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert all("multiprocessing" in " ".join(child.cmdline()) for child in children), children
    assert server.faults == [], server.output


def outside(server: Server) -> set[Path]:
    """Files near the server, but for those where it may write."""
    near = [*server.home.rglob("*"), *server.home.parent.glob("*"), *Path.cwd().glob("*")]
    return {path for path in near if path.is_file() and server.folder not in path.parents and path != server.log}


@pytest.mark.slow  # dozens of videos, one after the other
def test_names_of_files(server: Server, watched: Path, good: bytes) -> None:
    names = [name.format(mark=watched) for name in SHELL] + NAMES
    client = server.client()
    uploads = server.folder / "uploads"
    taken = 0
    for name in names:
        answer = client.upload(name, good)
        if answer.status_code != 200:
            assert answer.status_code in (400, 413, 422, 500), name
            continue
        stored = Path(answer.json()[0])
        assert uploads in stored.resolve().parents, name
        said = client.ask("look", as_file(str(stored)))
        assert said.startswith("Video: 1.00 s") or "no longer kept" in said or "refused" in said, (name, said)
        taken += said.startswith("Video")
    assert taken > len(names) / 2
    for path in server.session_files():
        assert path.name.startswith(("video-", "foley-")), path


def test_paths_of_files(server: Server, watched: Path, listener: tuple[int, list[str]]) -> None:
    port, asked = listener
    client = server.client()
    uploads = server.folder / "uploads"
    for path in PATHS:
        told = path.replace("{port}", str(port)).replace("{uploads}", str(uploads)).replace("{mark}", str(watched))
        for file in (as_file(told), {**as_file(told), "url": f"http://127.0.0.1:{port}/url", "is_stream": True}, told):
            for function, data in (("look", [file]), ("make", [file, "", 0, 1, 1, 1.5, False, False])):
                said = client.ask(function, *data)
                assert not said.startswith(("Done", "Video")), (file, said)
                assert "root:" not in said
    assert asked == []
    for route in (
        f"/gradio_api/file=http://127.0.0.1:{port}/a", f"/gradio_api/file=HTTP://127.0.0.1:{port}/a",
        f"/gradio_api/proxy=http://127.0.0.1:{port}/a", "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={server.folder}/sessions/../../../../etc/passwd", "/gradio_api/file=..%2f..%2fetc%2fpasswd",
        f"/gradio_api/file={server.folder}/sessions", "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
    ):  # fmt: skip
        status, body = raw(server.url, f"GET {route} HTTP/1.1")
        assert status in (400, 403, 404, 405), (route, status)
        assert b"root:" not in body
    assert asked == []


@pytest.mark.slow  # dozens of videos, one after the other
def test_contents_of_files(server: Server, watched: Path, good: bytes, tmp_path: Path) -> None:
    client = server.client()
    for what, content in files(good, tmp_path):
        begun = time.monotonic()
        answer = client.upload(f"{what}.mp4", content)
        if answer.status_code == 200:
            said = client.make(as_file(answer.json()[0]))
            decodable = what in ("ten hours in a header", "cut in the middle", "sizes of boxes that lie")
            assert "This file cannot" in said or "only sound" in said or "too large" in said or (
                decodable and said.startswith("Done")
            ), (what, said)  # fmt: skip
            assert "/" not in said.replace("I/O", ""), said
        assert time.monotonic() - begun < 30, what
    polyglot = good + b"<script>alert(1)</script><?php system('touch executed'); ?>PK\x03\x04"
    made = client.uploaded(polyglot, "a.html")
    assert client.make(made).startswith("Done")
    served = requests.get(f"{server.url}/gradio_api/file={made['path']}", timeout=30)
    assert served.headers["content-disposition"].startswith("attachment")
    assert served.headers["x-content-type-options"] == "nosniff"


def test_numbers_and_texts(server: Server, watched: Path, good: bytes) -> None:
    client = server.client()
    video = client.uploaded(good)
    for changed in HUGE:
        text = json.dumps(changed).replace("{mark}", str(watched))
        said = client.make(video, **json.loads(text))
        assert not said.startswith("Done"), (changed, said)
    assert client.make(video, text="$(touch x); '\"\0 <script>alert(1)</script> \N{PILE OF POO}").startswith("Done")
    assert "root" not in client.remake(1, 0, 1)
    done = [spot for spot in SPANS if client.remake(*spot).startswith("Done")]
    assert done == SPANS[:1]


def test_events_that_no_button_sends(server: Server, watched: Path) -> None:
    client = server.client()
    for nonsense in (None, True, -1, 10**40, "1", "../../etc/passwd", "x" * 100_000, "<img src=x>", [0], {"a": 1}):
        for function, name in (("pick", "example"), ("word", "word"), ("typed", "text"), ("open", "result")):
            told = client.tell(function, {name: nonsense})
            assert told.status_code == 200, (function, nonsense, told.text)
            assert "<img" not in told.text
            assert "/etc/passwd" not in told.text.replace("../../etc/passwd", "")
    assert "hammering nail" in client.tell("pick", {"example": 1}).text


def test_requests_as_such(server: Server, watched: Path) -> None:
    join = "/gradio_api/queue/join"
    assert requests.get(server.url, headers={"Host": "evil.example.org"}, timeout=30).status_code == 400
    large = requests.post(f"{server.url}{join}", data=b"x" * (1 << 20) + b"x", timeout=30)
    assert large.status_code == 413
    terabyte = f"POST /gradio_api/upload HTTP/1.1\r\nContent-Length: {10**12}"
    assert raw(server.url, terabyte)[0] == 413  # before it is read
    taken = [flood(server.url, files=files) for files in (1, 1000) for _ in range(10)]  # form too large, file too large
    assert max(taken) < 500, taken  # 3 and what the system's buffers hold
    deep = requests.post(f"{server.url}{join}", data="[" * 100_000, timeout=30)
    assert deep.status_code == 403
    for body in (b"", b"null", b"[]", b"{", b'{"fn_index": 10000, "data": []}', b'{"fn_index": -1, "data": null}'):
        answer = requests.post(f"{server.url}{join}", data=body, timeout=30)
        assert answer.status_code >= 400, (body, answer.text)
    key = Client(server.url, "../../../../tmp/escaped\0; touch x")
    assert "Choose a video" in key.make(None)
    assert raw(server.url, f"GET / HTTP/1.1\r\nX: {'y' * 200_000}")[0] in (0, 400, 431)
    status, _ = raw(server.url, "BREW / HTTP/1.1")
    assert status in (400, 405)
    headers = requests.get(server.url, timeout=30).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    foreign = requests.post(f"{server.url}{join}", json={}, headers={"Origin": "http://evil.example.org"}, timeout=30)
    assert foreign.headers.get("access-control-allow-origin") is None


@pytest.mark.slow  # dozens of videos, one after the other
def test_a_crowd(server: Server, watched: Path, good: bytes) -> None:
    """More jobs than fit in the queue, from as many sessions: the rest get an error, and none waits for ever."""
    clients = [server.client() for _ in range(24)]
    video = clients[0].uploaded(good)
    said = [""] * len(clients)

    def ask(number: int) -> None:
        said[number] = clients[number].make(video, steps=8, candidates=2)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.startswith("Done") or "in line already" in one for one in said), said
    assert sum(one.startswith("Done") for one in said) >= 16


@pytest.mark.slow  # a server of its own
def test_a_full_disk_is_a_sentence(model: Path, tmp_path: Path) -> None:
    for seconds in (1, 60):
        write_video(tmp_path / f"{seconds}.mp4", np.zeros((seconds, 48, 64, 3), np.uint8), 1)
    with small_disk(tmp_path / "small") as disk:
        server = Server(model, disk)
        try:
            client = server.client()
            told = client.make(client.uploaded((tmp_path / "60.mp4").read_bytes()))
            assert told.startswith("A file could not be read or written: no room for a temporary file of 5.3 MB")
            assert str(disk) not in told
            told = client.make(client.uploaded((tmp_path / "1.mp4").read_bytes()))
            assert told.startswith("Done"), "the server goes on"
        finally:
            server.stop()


def test_it_listens_here_alone(server: Server) -> None:
    (port,) = {urlsplit(server.url).port}
    process = psutil.Process(server.process.pid)
    listening = {one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert [(one.ip, one.port) for one in listening] == [("127.0.0.1", port)]


def flood(url: str, *, files: int) -> int:
    """Upload without promising a length, and without an end: how many MB are read until the connection is closed.

    Args:
        files: MB that go into each file of the form.
    """
    where = urlsplit(url)
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {where.netloc}\r\nTransfer-Encoding: chunked\r\n"
    form = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = b'\r\n--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    with socket.create_connection((where.hostname, where.port), timeout=30) as line:
        line.sendall((head + form).encode())
        for sent in range(1000):
            data = (b"" if sent % files else part) + bytes(1 << 20)
            try:
                line.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            except ConnectionError:
                return sent
    return 1000


def raw(url: str, request: str) -> tuple[int, bytes]:
    """A request as it stands, which no client would send; status and body, 0 where the line was closed."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as line:
        try:
            line.sendall(f"{request}\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        except ConnectionError:
            return 0, b""
    status = answer.split(b" ", 2)[1] if answer.startswith(b"HTTP/") else b"0"
    return int(status), answer.partition(b"\r\n\r\n")[2]
