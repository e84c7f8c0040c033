"""Hundreds of hostile requests to the page and to the HTTP interface: none is executed, leaves its folder or hangs."""

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
from dataclasses import dataclass
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
from helpers.web_api import Api
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
    {"negative": "x" * 301},
    {"text": "0-3: rain; 2-4: wind"},
    {"text": "5-3: rain"},
    {"like": "/etc/passwd"},
    {"like": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}},
    {"duration": 1e309},
    {"duration": -1},
    {"duration": "1; touch {mark}"},
]
FIELDS: list[list[tuple[str, Any]]] = [
    [("seed", "1" + "0" * 400)],
    [("seed", "1" + "0" * 9000)],
    [("seed", "-1")],
    [("seed", "1e308")],
    [("seed", "NaN")],
    [("seed", "")],
    [("seed", "1; touch {mark}")],
    [("seed", "0"), ("seed", "1")],
    [("candidates", str(10**9))],
    [("candidates", "0")],
    [("candidates", "1.5")],
    [("steps", str(2**63))],
    [("steps", "-5")],
    [("scale", "1e309")],
    [("scale", "inf")],
    [("scale", "-0.001")],
    [("negative_scale", "nan")],
    [("duration_s", "1e308")],
    [("text", "x" * 10_000)],
    [("text", "x" * 301)],
    [("text", ("text", b"rain"))],
    [("text", "0-3: rain"), ("text", "2-4: wind")],
    [("text", "nan-inf: rain"), ("text", "0-1: wind")],
    [("negative", "x" * 301)],
    [("keep_original_audio", "yes; touch {mark}")],
    [("only", "nan-nan")],
    [("only", "-1-2")],
    [("only", "0-inf")],
    [("only", "1e400-2")],
    [("only", "0.5")],
    [("only", ("only", b"0-1"))],
    [("like", "/etc/passwd")],
    [("from_audio", "{mark}")],
    [("__class__", "x")],
    [("video.path", "/etc/passwd")],
    [("video", "/etc/passwd")],
    [("model_config", "x")],
    [("text", "rain")] * 65,
]
"""Of a form, besides its video."""
JOBS = [
    "",
    ".",
    "..",
    "..%2f..%2f..%2fetc%2fpasswd",
    "../../../../etc/passwd",
    "%00",
    "%ff%fe",
    "x" * 60_000,
    "*",
    "{{7*7}}",
    "$(touch {mark})",
    "http:%2f%2f127.0.0.1:{port}%2fa",
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


@dataclass(frozen=True)
class Page:
    """`specmaskfoley web`, asked as its own script asks."""

    server: Server
    uploads = "/gradio_api/upload"
    field = "files"

    def look(self, name: str, content: bytes) -> str:
        """What is said of an upload."""
        client = self.server.client()
        answer = client.upload(name, content)
        if answer.status_code != 200:
            assert answer.status_code in (400, 413, 422, 500), name
            return "refused"
        stored = Path(answer.json()[0])
        assert self.server.folder / "uploads" in stored.resolve().parents, name
        return client.ask("look", as_file(str(stored)))

    def make(self, content: bytes, name: str = "clip.mp4", **changed: Any) -> str:
        """What is said at the end, or "refused"."""
        client = self.server.client()
        answer = client.upload(name, content)
        return client.make(as_file(answer.json()[0]), **changed) if answer.status_code == 200 else "refused"


@dataclass(frozen=True)
class Interface:
    """`specmaskfoley serve`, likewise."""

    server: Server
    uploads = "/jobs"
    field = "video"

    def look(self, name: str, content: bytes) -> str:
        said = self.make(content, name)
        return "refused" if said == "Invalid multipart data." else said.replace("Done: 1 take of", "Video:")

    def make(self, content: bytes, name: str = "clip.mp4", **changed: Any) -> str:
        fields = {"steps": 2} | changed
        return self.send([("video", (name, content)), *((field, str(value)) for field, value in fields.items())])

    def send(self, fields: list[tuple[str, Any]]) -> str:
        api = Api(self.server.url)
        answer = api.send(fields)
        if answer.status_code != 202:
            assert answer.status_code in (400, 413, 422, 429), answer.text
            detail: str = answer.json()["detail"]
            return detail
        job = api.ended(answer.json())
        assert api.delete(job["url"]).status_code == 204
        if job["state"] == "failed":
            error: str = job["error"]
            return error
        count = "1 take" if len(job["takes"]) == 1 else f"{len(job['takes'])} takes"
        return f"Done: {count} of {job['takes'][0]['duration_s']:.2f} s."


@pytest.fixture(params=[Page, Interface], ids=["page", "api"])
def site(request: pytest.FixtureRequest) -> Page | Interface:
    server: Server = request.getfixturevalue("server" if request.param is Page else "served")
    made: Page | Interface = request.param(server)
    return made


page = pytest.mark.parametrize("site", [Page], indirect=True, ids=["page"])
interface = pytest.mark.parametrize("site", [Interface], indirect=True, ids=["api"])


@pytest.fixture
def watched(site: Page | Interface, tmp_path: Path, good: bytes) -> Iterator[Path]:
    """A place that a successful attack would touch; checks afterwards that the server is as it was."""
    mark, server = tmp_path / "executed", site.server
    before = outside(server)
    yield mark
    assert not mark.exists()
    assert outside(server) == before, "a file was written outside"
    assert server.process.poll() is None
    assert site.make(good).startswith("Done: 1 take of 1.00 s")
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert all("multiprocessing" in " ".join(child.cmdline()) for child in children), children
    assert server.faults == [], server.output


def outside(server: Server) -> set[Path]:
    """Files near the server, but for those where it may write."""
    near = [*server.home.rglob("*"), *server.home.parent.glob("*"), *Path.cwd().glob("*")]
    return {path for path in near if path.is_file() and server.folder not in path.parents and path != server.log}


@pytest.mark.slow  # dozens of videos, one after the other
def test_names_of_files(site: Page | Interface, watched: Path, good: bytes) -> None:
    names = [name.format(mark=watched) for name in SHELL] + NAMES
    if isinstance(site, Interface):
        names = names[::2]  # each is a whole job there
    taken = 0
    for name in names:
        said = site.look(name, good)
        assert said.startswith("Video: 1.00 s") or "no longer kept" in said or "refused" in said, (name, said)
        taken += said.startswith("Video")
    assert taken > len(names) / 2
    for path in site.server.session_files():
        assert path.name.startswith(("video-", "foley-")), path


@page
def test_paths_of_files(server: Server, watched: Path, listener: tuple[int, list[str]]) -> None:
    port, asked = listener
    client = server.client()
    uploads = server.folder / "uploads"
    for path in PATHS:
        told = path.replace("{port}", str(port)).replace("{uploads}", str(uploads)).replace("{mark}", str(watched))
        for file in (as_file(told), {**as_file(told), "url": f"http://127.0.0.1:{port}/url", "is_stream": True}, told):
            for said in (
                client.ask("look", file), client.make(file), client.ask("look_sound", file),
                client.make(None, like=file, duration=1),
            ):  # fmt: skip
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


@interface
def test_paths_of_files_and_jobs(site: Interface, watched: Path, listener: tuple[int, list[str]]) -> None:
    port, asked = listener
    folder = site.server.folder
    for path in PATHS:
        told = path.replace("{port}", str(port)).replace("{uploads}", str(folder)).replace("{mark}", str(watched))
        for field in ("video", "like", "from_audio"):
            said = site.send([("duration_s", "1"), (field, told)])
            assert said.startswith((f"{field}: expected a file", "Part exceeded")), (field, path, said)
    made = Api(site.server.url).made(duration_s=1, text="rain", steps=1)
    for job in JOBS:
        told = job.replace("{port}", str(port)).replace("{mark}", str(watched))
        for route in (
            f"GET /jobs/{told}", f"DELETE /jobs/{told}", f"GET /jobs/{told}/takes/1.flac", f"GET /{told}",
            f"GET {made['url']}/takes/{told}", f"GET {made['url']}/takes/{told}.flac", f"GET {made['url']}/{told}",
        ):  # fmt: skip
            status, body = raw(site.server.url, f"{route} HTTP/1.1")
            assert status in (0, 307, 400, 404, 405) or route == "GET / HTTP/1.1", (route[:100], status)
            assert b"root:" not in body
            assert str(folder).encode() not in body
    assert Api(site.server.url).delete(made["url"]).status_code == 204
    assert asked == []


@pytest.mark.slow  # dozens of videos, one after the other
def test_contents_of_files(site: Page | Interface, watched: Path, good: bytes, tmp_path: Path) -> None:
    for what, content in files(good, tmp_path):
        begun = time.monotonic()
        said = site.make(content, f"{what}.mp4")
        decodable = what in ("ten hours in a header", "cut in the middle", "sizes of boxes that lie")
        assert "This file cannot" in said or "only sound" in said or "too large" in said or said == "refused" or (
            decodable and said.startswith("Done")
        ), (what, said)  # fmt: skip
        assert "/" not in said.replace("I/O", ""), said
        assert time.monotonic() - begun < 30, what


@pytest.mark.slow  # dozens of sounds, one after the other
@interface
def test_contents_of_sounds(site: Interface, watched: Path, good: bytes, tmp_path: Path) -> None:
    for what, content in files(good, tmp_path):
        begun = time.monotonic()
        for given in (
            [("video", ("clip.mp4", good)), ("from_audio", (what, content))],
            [("duration_s", "1"), ("like", (what, content))],
        ):
            said = site.send([*given, ("steps", "1")])
            sound = what in ("sound alone", "ten hours in a header", "cut in the middle", "sizes of boxes that lie")
            assert said.startswith("The sound ") or (sound and said.startswith("Done")), (what, said)
            assert "/" not in said.replace("I/O", ""), said
        assert time.monotonic() - begun < 60, what


@page
def test_what_is_two_things_is_served_as_a_download(server: Server, watched: Path, good: bytes) -> None:
    client = server.client()
    polyglot = good + b"<script>alert(1)</script><?php system('touch executed'); ?>PK\x03\x04"
    made = client.uploaded(polyglot, "a.html")
    assert client.make(made).startswith("Done")
    served = requests.get(f"{server.url}/gradio_api/file={made['path']}", timeout=30)
    assert served.headers["content-disposition"].startswith("attachment")
    assert served.headers["x-content-type-options"] == "nosniff"


@interface
def test_fields(site: Interface, watched: Path, good: bytes) -> None:
    for fields in FIELDS:
        told = [
            (name, value.replace("{mark}", str(watched)) if isinstance(value, str) else value) for name, value in fields
        ]
        said = site.send([("video", ("clip.mp4", good)), *told])
        assert not said.startswith("Done"), (fields[:2], said)
        assert len(said) < 500, said
        assert str(watched) not in said
    for text in ("$(touch x); '\"\0 <script>alert(1)</script> \N{PILE OF POO}", "\ufeff\u202e\u2028"):
        assert site.make(good, text=text).startswith("Done")


@interface
def test_forms_that_are_none(site: Interface, watched: Path) -> None:
    url = f"{site.server.url}/jobs"
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    whole = part % (b"text", b"rain") + part % (b"duration_s", b"1") + part % (b"steps", b"1")
    for body, kind in (
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data; boundary="),
        (b"", "multipart/form-data; boundary=" + "x" * 10_000),
        (whole[:80], "multipart/form-data; boundary=x"),  # without an end
        (whole + b"--x--", "multipart/form-data; boundary=y"),
        (b"\0" * 1000, "multipart/form-data; boundary=x"),
        (part * 2 % (b"text", b"\xff\xfe", b"\xff", b"") + b"--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\n" + b"A: b\r\n" * 100_000 + b"\r\nx\r\n--x--", "multipart/form-data; boundary=x"),
        (part % (b"text", b"x") * 1_000_000 + b"--x--", "multipart/form-data; boundary=x"),
        (whole.replace(b"steps", b"\\ud800") + b"--x--", "multipart/form-data; boundary=x; charset=unicode_escape"),
        (
            whole + part % (b"negative", b"\\ud800") + b"--x--",
            "multipart/form-data; boundary=x; charset=unicode_escape",
        ),
        (whole.replace(b"1", b"x") + b"--x--", "multipart/form-data; boundary=x; charset=zlib"),
    ):
        answer = requests.post(url, data=body, headers={"Content-Type": kind}, timeout=60)
        assert answer.status_code in (400, 413, 422), (body[:100], kind[:100], answer.status_code, answer.text)
        assert isinstance(answer.json()["detail"], str)
    latin = whole + part % (b"negative", b"\xff\xfe") + b"--x--"
    taken = requests.post(url, data=latin, headers={"Content-Type": "multipart/form-data; boundary=x"}, timeout=60)
    assert taken.status_code == 202, taken.text
    assert Api(site.server.url).ended(taken.json())["state"] == "done"


@page
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


@page
def test_events_that_no_button_sends(server: Server, watched: Path) -> None:
    client = server.client()
    for nonsense in (None, True, -1, 10**40, "1", "../../etc/passwd", "x" * 100_000, "<img src=x>", [0], {"a": 1}):
        for function, name in (("pick", "example"), ("word", "word"), ("typed", "text"), ("open", "result")):
            told = client.tell(function, {name: nonsense})
            assert told.status_code == 200, (function, nonsense, told.text)
            assert "<img" not in told.text
            assert "/etc/passwd" not in told.text.replace("../../etc/passwd", "")
    assert "hammering nail" in client.tell("pick", {"example": 1}).text


def test_requests_of_any_size(site: Page | Interface, watched: Path) -> None:
    url = site.server.url
    assert raw(url, f"POST {site.uploads} HTTP/1.1\r\nContent-Length: {10**12}")[0] == 413  # before it is read
    taken = [flood(site, files=files) for files in (1, 1000) for _ in range(10)]  # form too large, file too large
    assert max(taken) < 500, taken  # 3 and what the system's buffers hold
    assert raw(url, f"GET / HTTP/1.1\r\nX: {'y' * 200_000}")[0] in (0, 400, 431)
    assert raw(url, "BREW / HTTP/1.1")[0] in (400, 405)


@interface
def test_uploads_that_never_end_are_only_so_many_and_make_room_when_they_are_gone(
    site: Interface, watched: Path
) -> None:
    where, api = urlsplit(site.server.url), Api(site.server.url)
    head = f"POST /jobs HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    begun = f"{head}Content-Length: 1000000\r\n\r\n--x\r\n".encode()
    small = [("duration_s", "1"), ("text", "rain"), ("steps", "1")]
    lines = []
    try:
        deadline = time.monotonic() + 240
        while (refused := api.send(small)).status_code == 202:
            assert api.ended(refused.json())["state"] == "done"
            assert api.delete(refused.json()["url"]).status_code == 204
            # Not sixteen: the server may take the next form before this one, which is then refused.
            lines.append(socket.create_connection((where.hostname, where.port), timeout=30))
            lines[-1].sendall(begun)
            assert time.monotonic() < deadline
        assert refused.status_code == 429
        assert len(lines) >= 16
    finally:
        for line in lines:
            line.close()
    while (again := api.send(small)).status_code == 429:
        assert time.monotonic() < deadline
    assert api.ended(again.json())["state"] == "done"
    assert api.delete(again.json()["url"]).status_code == 204


def test_requests_of_other_sites(site: Page | Interface, watched: Path, good: bytes) -> None:
    url = site.server.url
    assert requests.get(url, headers={"Host": "evil.example.org"}, timeout=30).status_code == 400
    assert "default-src 'self'" in requests.get(url, timeout=30).headers["content-security-policy"]
    own = url.replace("127.0.0.1", "localhost")
    for headers, taken in (
        ({"Origin": "http://evil.example.org"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://[::"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": own}, False),  # asked is 127.0.0.1
        ({"Origin": url, "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": url}, True),
        ({"Origin": url, "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
    ):
        before = requests.get(url, headers=headers, timeout=30)
        assert before.status_code == 200, "a link to it may be followed"
        readable = before.headers.get("access-control-allow-origin")
        assert readable not in ("*", "null", "http://evil.example.org"), headers
        sent = requests.post(f"{url}{site.uploads}", files={site.field: ("a.mp4", good)}, headers=headers, timeout=30)
        assert sent.status_code in ((200, 202) if taken else (403,)), (headers, sent.text)
        if taken and isinstance(site, Interface):
            job = sent.json()["url"]
            assert requests.delete(f"{url}{job}", headers={"Origin": "http://evil.org"}, timeout=30).status_code == 403
            assert requests.delete(f"{url}{job}", headers=headers, timeout=30).status_code == 204


@page
def test_requests_as_such(server: Server, watched: Path) -> None:
    join = "/gradio_api/queue/join"
    large = requests.post(f"{server.url}{join}", data=b"x" * (1 << 20) + b"x", timeout=30)
    assert large.status_code == 413
    deep = requests.post(f"{server.url}{join}", data="[" * 100_000, timeout=30)
    assert deep.status_code == 403
    for body in (b"", b"null", b"[]", b"{", b'{"fn_index": 10000, "data": []}', b'{"fn_index": -1, "data": null}'):
        answer = requests.post(f"{server.url}{join}", data=body, timeout=30)
        assert answer.status_code >= 400, (body, answer.text)
    key = Client(server.url, "../../../../tmp/escaped\0; touch x")
    assert "Choose a video" in key.make(None)


@pytest.mark.slow  # dozens of videos, one after the other
def test_a_crowd(site: Page | Interface, watched: Path, good: bytes) -> None:
    """More jobs than fit in the queue, from as many sessions: the rest get an error, and none waits for ever."""
    said = [""] * 24

    def ask(number: int) -> None:
        said[number] = site.make(good, steps=8, candidates=2)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(said))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.startswith("Done") or "in line already" in one for one in said), said
    assert sum(one.startswith("Done") for one in said) >= 16


@pytest.mark.slow  # a server of its own
@pytest.mark.parametrize(("kind", "command"), [(Page, "web"), (Interface, "serve")], ids=["page", "api"])
def test_a_full_disk_is_a_sentence(kind: type[Page | Interface], command: str, model: Path, tmp_path: Path) -> None:
    for seconds in (1, 60):
        write_video(tmp_path / f"{seconds}.mp4", np.zeros((seconds, 48, 64, 3), np.uint8), 1)
    with small_disk(tmp_path / "small") as disk:
        server = Server(model, disk, command=command)
        site = kind(server)
        try:
            told = site.make((tmp_path / "60.mp4").read_bytes())
            assert told.startswith("A file could not be read or written: no room for a temporary file of 5.3 MB")
            assert str(disk) not in told
            if isinstance(site, Interface):
                large = Api(server.url).send([("video", ("a.mp4", bytes(3_000_000)))])
                assert (large.status_code, "No space left" in large.json()["detail"]) == (507, True)
            told = site.make((tmp_path / "1.mp4").read_bytes())
            assert told.startswith("Done"), "the server goes on"
        finally:
            server.stop()


def test_it_listens_here_alone(site: Page | Interface) -> None:
    (port,) = {urlsplit(site.server.url).port}
    process = psutil.Process(site.server.process.pid)
    listening = {one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert [(one.ip, one.port) for one in listening] == [("127.0.0.1", port)]


def flood(site: Page | Interface, *, files: int) -> int:
    """Upload without promising a length, and without an end: how many MB are read until the connection is closed.

    Args:
        files: MB that go into each file of the form.
    """
    where = urlsplit(site.server.url)
    head = f"POST {site.uploads} HTTP/1.1\r\nHost: {where.netloc}\r\nTransfer-Encoding: chunked\r\n"
    form = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = b'\r\n--x\r\nContent-Disposition: form-data; name="%s"; filename="a.mp4"\r\n\r\n' % site.field.encode()
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
