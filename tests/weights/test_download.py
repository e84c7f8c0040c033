"""Transfers over a real server that does everything servers and networks do to them."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.web_server import Answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specmaskfoley.weights.download import Transfer, UnreachableError, _authorization, discard, download, version_path
from specmaskfoley.weights.records import WrongFileError

QUICK = Transfer(retries=2, backoff_s=0.0, timeout_s=5.0)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.pth.part"


def test_a_file_comes_whole(web, part):
    download(web.url(), part, QUICK, size=len(web.body))
    assert part.read_bytes() == web.body
    assert web.ranges == [None]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drops=st.lists(st.integers(0, 1 << 20), max_size=6))
def test_any_series_of_broken_connections_ends_with_the_file(web, tmp_path, drops):
    part = tmp_path / "hypothesis.part"
    discard(part)
    web.script = [Answer(drop_after=drop) for drop in drops]
    download(web.url(), part, Transfer(retries=len(drops), backoff_s=0.0))
    assert part.read_bytes() == web.body
    web.script.clear()


def test_a_broken_transfer_goes_on_where_it_was(web, part):
    web.script = [Answer(drop_after=600_000), Answer(drop_after=200_000)]
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in web.ranges[1:]]
    assert starts == sorted(starts)
    assert starts[0] > 500_000
    assert web.sent < 1.2 * len(web.body)


def test_a_later_call_goes_on_and_a_complete_part_asks_nothing(web, part):
    web.script = [Answer(drop_after=500_000), Answer(status=503), Answer(status=503), Answer(status=503)]
    with pytest.raises(OSError, match=r"gave up after 3 attempts .*503.* are kept, the next run goes on"):
        download(web.url(), part, QUICK)
    kept = part.stat().st_size
    assert 400_000 < kept <= 500_000
    download(web.url(), part, QUICK)
    assert web.ranges[-1] == f"bytes={kept}-"
    assert part.read_bytes() == web.body
    asked = len(web.requests)
    download(web.url(), part, QUICK)
    assert len(web.requests) == asked


def test_a_server_without_ranges_starts_over_and_never_loops(web, part):
    web.script = [Answer(drop_after=300_000, ranges=False), Answer(ranges=False)]
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body
    discard(part)
    web.requests.clear()
    web.usual = Answer(drop_after=300_000, ranges=False)
    with pytest.raises(OSError, match="without progress"):
        download(web.url(), part, QUICK)
    assert len(web.requests) == 1 + 1 + QUICK.retries  # progress once, then none


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize(
    "marks", [("etag", '"one"', '"two"'), ("last_modified", "Mon, 01 Jan 2024", "Tue, 02 Jan 2024")]
)
def test_halves_of_two_files_are_never_joined(web, part, heeds, marks):
    field, old, new = marks
    other = bytes(reversed(web.body))
    nothing = {"etag": None}
    web.script = [Answer(drop_after=500_000, **(nothing | {field: old}))]
    web.usual = Answer(body=other, heed_if_range=heeds, **(nothing | {field: new}))
    download(web.url(), part, QUICK)
    assert part.read_bytes() == other


def test_a_file_that_got_longer_is_not_joined_even_without_tags(web, part):
    web.script = [Answer(drop_after=500_000, last_modified="Mon, 01 Jan 2024", etag=None)]
    web.usual = Answer(body=web.body + b"more", last_modified="Mon, 01 Jan 2024", etag=None)
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body + b"more"


@pytest.mark.parametrize("etag", [None, 'W/"weak"', "unquoted"])
def test_without_a_strong_mark_a_transfer_starts_over(web, part, etag):
    web.script = [Answer(drop_after=500_000, etag=etag)]
    web.usual = Answer(etag=etag)
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body
    assert web.ranges == [None, None]


def test_a_part_of_another_address_or_of_unknown_origin_is_not_used(web, part):
    web.script = [Answer(drop_after=500_000), Answer(status=503)]
    with pytest.raises(OSError, match="gave up"):
        download(web.url("old"), part, Transfer(retries=0, backoff_s=0.0))
    download(web.url("new"), part, QUICK)
    assert part.read_bytes() == web.body
    assert web.ranges[-1] is None
    part.write_bytes(b"x" * 1000)
    version_path(part).write_text("not json")
    download(web.url("new"), part, QUICK)
    assert part.read_bytes() == web.body


def test_a_part_longer_than_the_file_starts_over(web, part):
    web.script = [Answer(drop_after=500_000), Answer(status=503)]
    with pytest.raises(OSError, match="gave up"):
        download(web.url(), part, Transfer(retries=0, backoff_s=0.0))
    with part.open("ab") as stream:
        stream.write(b"x" * 2_000_000)
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body


@pytest.mark.parametrize("complete", [True, False])
def test_no_more_bytes_to_give(web, part, complete):
    """A server that had not said how long the file is, and a kill between the last byte and the next step."""
    whole = web.body if complete else web.body + b"beyond"
    web.script = [Answer(body=whole, length="none")]
    download(web.url(), part, QUICK)
    assert part.read_bytes() == whole
    download(web.url(), part, QUICK)
    assert web.ranges[1] == f"bytes={len(whole)}-"
    assert part.read_bytes() == web.body


@pytest.mark.parametrize("place", ["bytes 7-9/10", "nonsense", ""])
def test_a_server_that_sends_another_range_starts_over(web, part, place):
    web.script = [Answer(drop_after=500_000), Answer(headers={"Content-Range": place})]
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body


def test_busy_servers_are_asked_again(web, part):
    web.script = [Answer(status=503), Answer(status=429, headers={"Retry-After": "1"})]
    start = time.monotonic()
    download(web.url(), part, QUICK)
    assert part.read_bytes() == web.body
    assert time.monotonic() - start >= 1.0


@pytest.mark.parametrize(("status", "advice"), [(404, "it may have moved"), (403, "HTTP 403"), (500, "gave up")])
def test_refusals_are_reported(web, part, status, advice):
    web.usual = Answer(status=status)
    with pytest.raises((ValueError, OSError), match=advice) as caught:
        download(web.url(), part, QUICK)
    assert web.url() in str(caught.value)
    assert len(web.requests) == (1 + QUICK.retries if status == 500 else 1)


def test_redirects_are_followed_with_the_range(web, part):
    there = Answer(status=302, headers={"Location": web.url("there")})
    web.script = [there, Answer(drop_after=500_000), there]
    download(web.url("here"), part, QUICK)
    assert part.read_bytes() == web.body
    assert [path for path, _ in web.requests] == ["/here", "/there"] * 2
    assert web.ranges[3] is not None


def test_a_stated_length_that_is_too_long_does_not_loop(web, part):
    web.usual = Answer(length=len(web.body) + 100)
    download(web.url(), part, QUICK)  # asked for the rest, the server says how long the file is
    assert part.read_bytes() == web.body
    discard(part)
    web.usual = Answer(length=len(web.body) + 100, ranges=False)
    with pytest.raises(OSError, match="gave up"):
        download(web.url(), part, QUICK)


def test_a_stated_length_that_is_too_short_is_a_wrong_file(web, part):
    web.usual = Answer(length=len(web.body) - 100)
    with pytest.raises(WrongFileError, match=f"expected {len(web.body)} bytes, the server has {len(web.body) - 100}"):
        download(web.url(), part, QUICK, size=len(web.body))


def test_a_silent_server_times_out_and_the_next_attempt_goes_on(web, part):
    web.script = [Answer(piece=400_000, pause_s=10.0)]
    start = time.monotonic()
    download(web.url(), part, Transfer(retries=1, backoff_s=0.0, timeout_s=0.5))
    assert part.read_bytes() == web.body
    assert web.ranges[1] is not None
    assert time.monotonic() - start < 8


def test_a_slow_server_is_waited_for(web, part):
    web.usual = Answer(piece=100_000, pause_s=0.05)
    download(web.url(), part, Transfer(retries=0, backoff_s=0.0, timeout_s=5.0))
    assert part.read_bytes() == web.body
    assert len(web.requests) == 1


def test_a_full_disk_is_noticed_before_anything_is_written(web, part):
    web.usual = Answer(length=10**18)
    with pytest.raises(ValueError, match=r"needs 1000000000\.0 GB for file\.pth\.part, has .*weights\.folder or fetch"):
        download(web.url(), part, QUICK)
    assert not part.exists()


def test_a_compressed_answer_is_refused(web, part):
    web.usual = Answer(headers={"Content-Encoding": "gzip"})
    with pytest.raises(ValueError, match="compresses the file"):
        download(web.url(), part, QUICK)
    assert web.requests[0][1]["accept-encoding"] == "identity"


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (5, 3)])
def test_nobody_there_is_told_soon(tmp_path, capsys, retries, attempts):
    with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:9 cannot be reached \(.*Connection refused\)$"):
        download("http://127.0.0.1:9/file", tmp_path / "x.part", Transfer(retries=retries, backoff_s=0.0), title="x")
    assert capsys.readouterr().err.splitlines() == [
        f"x: Failed to establish a new connection: [Errno 111] Connection refused; again in 0 s (attempt {number} of "
        f"{attempts})"
        for number in range(2, attempts + 1)
    ]


def test_a_server_that_has_answered_once_is_waited_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            server.accept()[0].close()
            server.close()

        threading.Thread(target=hang_up).start()
        with pytest.raises(OSError, match="gave up after 5 attempts without progress"):
            download(f"http://127.0.0.1:{port}/file", tmp_path / "x.part", Transfer(retries=4, backoff_s=0.0))


def test_a_killed_transfer_is_continued_by_the_next_process(web, part):
    web.usual = Answer(piece=1 << 14, pause_s=0.01)
    code = (
        "import sys; from pathlib import Path; from specmaskfoley.weights.download import Transfer, download;"
        "download(sys.argv[1], Path(sys.argv[2]), Transfer())"
    )
    child = subprocess.Popen([sys.executable, "-c", code, web.url(), str(part)])
    deadline = time.monotonic() + 120
    while (not part.exists() or part.stat().st_size < 400_000) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = part.stat().st_size
    assert 400_000 <= kept < len(web.body)
    web.usual = Answer()
    download(web.url(), part, QUICK)
    assert hashlib.sha256(part.read_bytes()).digest() == hashlib.sha256(web.body).digest()
    assert web.ranges == [None, f"bytes={kept}-"]
    assert web.sent < 1.3 * len(web.body)


def test_mirrors():
    hub = "https://huggingface.co/a/b"
    assert Transfer(mirror="https://mirror.example/x/").address(hub) == "https://mirror.example/x/huggingface.co/a/b"
    swapped = Transfer(mirror={"https://huggingface.co": "https://other", "https://huggingface.co/a/": "file-server/"})
    assert swapped.address(hub) == "file-server/b"
    assert swapped.address("https://huggingface.co/c") == "https://other/c"
    assert swapped.address("https://github.com/c") == "https://github.com/c"
    assert Transfer().address(hub) == hub


def test_a_mirror_is_asked_instead(web, part):
    download("https://huggingface.co/a/b.pth", part, Transfer(mirror=web.url("mirror"), retries=0))
    assert part.read_bytes() == web.body
    assert web.requests[0][0] == "/mirror/huggingface.co/a/b.pth"


def test_a_proxy_is_used(web, part):
    download("http://weights.invalid/b.pth", part, Transfer(proxy=web.url("").rstrip("/"), retries=0))
    assert part.read_bytes() == web.body
    assert web.requests[0][0] == "http://weights.invalid/b.pth"


def test_the_proxy_of_the_environment_is_used(web, part, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    download("http://weights.invalid/b.pth", part, Transfer(retries=0))
    assert web.requests[0][0] == "http://weights.invalid/b.pth"


def test_the_token_goes_to_the_hub_alone(web, part, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert _authorization("https://huggingface.co/a/resolve/main/b") == {"Authorization": "Bearer secret"}
    for address in ("http://huggingface.co/a", "https://huggingface.co.evil.example/a", "https://github.com/a"):
        assert _authorization(address) == {}
    download("https://huggingface.co/a/b.pth", part, Transfer(mirror=web.url("mirror"), retries=0))
    download("http://huggingface.co/b.pth", part, Transfer(proxy=web.url(""), retries=0))
    assert len(web.requests) == 2
    assert not any("authorization" in headers for _, headers in web.requests)
    monkeypatch.delenv("HF_TOKEN")
    assert _authorization("https://huggingface.co/a/resolve/main/b") == {}
