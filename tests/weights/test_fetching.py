"""Files into their folder: downloaded or from a bundle, checked, remembered."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.web_server import Answer

from specmaskfoley.weights import records
from specmaskfoley.weights.download import Transfer
from specmaskfoley.weights.fetching import describe, fetch, restrictions
from specmaskfoley.weights.lock import WeightFile
from specmaskfoley.weights.records import WrongFileError, checked, record_path, recorded, state_of

QUICK = Transfer(retries=2, backoff_s=0.0)


def entry(**fields: object) -> WeightFile:
    about = {"role": "a test", "file": "deep/file.pth", "licence": "MIT", "commercial": "allowed", "page": "p"}
    if not {"url", "hub", "by_hand"} & set(fields):
        about["url"] = "http://127.0.0.1:9/nothing"
    return WeightFile.model_validate({**about, **fields})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were hashed."""
    hashed: list[Path] = []
    real = records.hashes
    monkeypatch.setattr(records, "hashes", lambda path, kinds: (hashed.append(path), real(path, kinds))[1])
    return hashed


@pytest.mark.parametrize("kind", ["sha256", "md5", "git_sha1", "first digits"])
def test_a_file_is_fetched_checked_and_then_costs_nothing(web, tmp_path, counted, kind):
    value = {
        "sha256": {"sha256": sha256(web.body)},
        "md5": {"md5": hashlib.md5(web.body).hexdigest()},
        "git_sha1": {"git_sha1": git_sha1(web.body)},
        "first digits": {"sha256": sha256(web.body)[:8]},
    }[kind]
    lock = {"x": entry(url=web.url(), size=len(web.body), **value)}
    found = fetch(["x"], lock, tmp_path, QUICK)
    assert (tmp_path / "deep/file.pth").read_bytes() == web.body
    assert found["x"].sha256 == sha256(web.body)
    assert fetch(["x"], lock, tmp_path, QUICK) == found
    assert (len(web.requests), len(counted)) == (1, 1)
    assert state_of(tmp_path / "deep/file.pth", lock["x"]) == "verified"
    assert not list(tmp_path.rglob("*.part*"))


def test_wrong_bytes_once_are_fetched_again(web, tmp_path):
    lock = {"x": entry(url=web.url(), sha256=sha256(web.body))}
    web.script = [Answer(body=b"wrong" * 1000)]
    fetch(["x"], lock, tmp_path, QUICK)
    assert (tmp_path / "deep/file.pth").read_bytes() == web.body


def test_a_spoilt_part_is_fetched_again(web, tmp_path):
    lock = {"x": entry(url=web.url(), sha256=sha256(web.body))}
    web.script = [Answer(drop_after=500_000), *[Answer(status=503)] * 3]
    with pytest.raises(ValueError, match=r"^x: .*gave up"):
        fetch(["x"], lock, tmp_path, QUICK)
    part = tmp_path / "deep/file.pth.part"
    part.write_bytes(b"?" + part.read_bytes()[1:])
    fetch(["x"], lock, tmp_path, QUICK)
    assert (tmp_path / "deep/file.pth").read_bytes() == web.body


def test_wrong_bytes_always_name_file_and_both_sums(web, tmp_path):
    expected = "0" * 64
    with pytest.raises(ValueError, match=r"twice; if upstream has a new file, change weights\.lock\.yaml") as caught:
        fetch(["x"], {"x": entry(url=web.url(), sha256=expected)}, tmp_path, QUICK)
    for part in ("file.pth", expected, sha256(web.body)):
        assert part in str(caught.value)
    assert len(web.requests) == 2
    assert not any(path.is_file() and "lock" not in path.name for path in tmp_path.rglob("*"))


def test_a_wrong_length_is_noticed_before_the_download(web, tmp_path):
    with pytest.raises(ValueError, match=f"expected 7 bytes, the server has {len(web.body)}, twice"):
        fetch(["x"], {"x": entry(url=web.url(), size=7)}, tmp_path, QUICK)
    assert web.sent < len(web.body)


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"<!DOCTYPE html><p>Please log in", "is a web page"), (b"", "is empty"), (b"%PDF-1.4 ...", "neither a torch")],
)
def test_without_a_checksum_what_comes_must_at_least_look_like_weights(web, tmp_path, body, message):
    web.body = body
    with pytest.raises(ValueError, match=message):
        fetch(["x"], {"x": entry(url=web.url())}, tmp_path, QUICK)
    assert not (tmp_path / "deep/file.pth").exists()


def test_without_a_checksum_the_first_file_is_recorded_and_later_ones_must_equal_it(web, tmp_path):
    lock, target = {"x": entry(url=web.url())}, tmp_path / "deep/file.pth"
    web.body = b"\x80\x02 the first" * 100
    fetch(["x"], lock, tmp_path, QUICK)
    first = recorded(target)
    target.unlink()
    web.body = b"\x80\x02 another" * 100
    with pytest.raises(ValueError, match="recorded on the first fetch"):
        fetch(["x"], lock, tmp_path, QUICK)
    assert recorded(target) == first
    web.body = b"\x80\x02 the first" * 100
    fetch(["x"], lock, tmp_path, QUICK)
    target.write_bytes(b"\x80\x02 by hand")
    assert state_of(target, lock["x"]) == "present"
    with pytest.raises(ValueError, match=r"recorded on the first fetch.*delete it and fetch it again"):
        fetch(["x"], lock, tmp_path, QUICK)


def test_a_file_put_there_by_hand_is_checked_and_never_overwritten(web, tmp_path):
    lock, target = {"x": entry(url=web.url(), sha256=sha256(web.body))}, tmp_path / "deep/file.pth"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(ValueError, match="delete it and fetch it again"):
        fetch(["x"], lock, tmp_path, QUICK)
    assert target.read_bytes() == b"mine"
    target.write_bytes(web.body)
    fetch(["x"], lock, tmp_path, QUICK)
    assert web.requests == []


def test_what_has_no_address_says_what_to_put_where(tmp_path):
    lock = {"x": entry(by_hand="open the folder and download g_1")}
    with pytest.raises(ValueError, match="x: has no address") as caught:
        fetch(["x"], lock, tmp_path, QUICK)
    assert f"open the folder and download g_1, and put it at {tmp_path / 'deep/file.pth'}" in str(caught.value)


def test_one_problem_does_not_keep_the_others_from_coming(web, tmp_path):
    lock = {
        "a": entry(by_hand="ask", file="a.pth"),
        "b": entry(url=web.url(), file="b.pth", md5=hashlib.md5(web.body).hexdigest()),
        "c": entry(url=web.url(), file="c.pth", md5="0" * 32),
    }
    with pytest.raises(ValueError, match=r"(?s)^a: has no address.*\nc: .*expected md5 000"):
        fetch(lock, lock, tmp_path, QUICK)
    assert (tmp_path / "b.pth").read_bytes() == web.body
    with pytest.raises(ValueError, match=r"d: not in weights.lock.yaml \(known: a, b, c\)"):
        fetch(["d"], lock, tmp_path, QUICK)


def test_what_cannot_be_reached_is_one_line_and_each_host_is_tried_once(web, tmp_path, capsys):
    there = entry(url="http://127.0.0.1:9/there", file="there.pth", md5=hashlib.md5(web.body).hexdigest())
    (tmp_path / "there.pth").write_bytes(web.body)
    lock = {
        "a": entry(url="http://127.0.0.1:9/a", file="a.pth"),
        "b": entry(url="http://127.0.0.1:9/b", file="b.pth"),
        "c": entry(url="http://127.0.0.1:7/c", file="c.pth"),
        "there": there,
        "d": entry(url=web.url(), file="d.pth", md5=hashlib.md5(web.body).hexdigest()),
    }
    with pytest.raises(ValueError, match="cannot be reached") as caught:
        fetch(lock, lock, tmp_path, Transfer(retries=5, backoff_s=0.0))
    [line] = str(caught.value).splitlines()
    assert line.startswith("127.0.0.1:9, 127.0.0.1:7 cannot be reached (Failed to establish a new connection: [Errno ")
    assert "for a, b, c: check the network, weights.proxy and weights.mirror, or" in line
    assert "weights.bundle" in line
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["d.pth", "there.pth"]
    tried = [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if "again in" in line]
    assert tried == ["a", "a"]


@pytest.mark.parametrize("links", ["hard", "symbolic", "none"])
def test_a_bundle_is_linked_and_never_downloaded(web, tmp_path, monkeypatch, links):
    bundle, folder = tmp_path / "bundle", tmp_path / "weights"
    (bundle / "deep").mkdir(parents=True)
    (bundle / "deep/file.pth").write_bytes(web.body)

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    if links != "hard":
        monkeypatch.setattr(os, "link", refuse)
    if links == "none":
        monkeypatch.setattr(os, "symlink", refuse)
    lock = {"x": entry(url=web.url(), sha256=sha256(web.body))}
    found = fetch(["x"], lock, folder, QUICK, bundle)
    target = folder / "deep/file.pth"
    assert target.read_bytes() == web.body
    assert target.is_symlink() == (links == "symbolic")
    assert os.path.samefile(target, bundle / "deep/file.pth") == (links != "none")
    assert fetch(["x"], lock, folder, QUICK) == found
    assert web.requests == []


def test_a_bundle_with_a_wrong_or_missing_file_leaves_nothing(web, tmp_path):
    bundle, folder = tmp_path / "bundle", tmp_path / "weights"
    lock = {"x": entry(url=web.url(), sha256=sha256(web.body))}
    with pytest.raises(ValueError, match=r"bundle/deep/file\.pth: not in the bundle"):
        fetch(["x"], lock, folder, QUICK, bundle)
    (bundle / "deep").mkdir(parents=True)
    (bundle / "deep/file.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match=f"expected sha256 {sha256(web.body)}"):
        fetch(["x"], lock, folder, QUICK, bundle)
    assert not (folder / "deep/file.pth").exists()
    assert web.requests == []


def test_a_bundle_that_is_gone_is_noticed(web, tmp_path, monkeypatch):
    bundle, folder = tmp_path / "bundle", tmp_path / "weights"
    (bundle / "deep").mkdir(parents=True)
    (bundle / "deep/file.pth").write_bytes(web.body)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError()))
    lock = {"x": entry(url=web.url(), sha256=sha256(web.body))}
    fetch(["x"], lock, folder, QUICK, bundle)
    (bundle / "deep/file.pth").unlink()
    assert state_of(folder / "deep/file.pth", lock["x"]) == "missing"
    fetch(["x"], lock, folder, QUICK)
    assert not (folder / "deep/file.pth").is_symlink()


def test_two_threads_at_once_download_once(web, tmp_path, capsys):
    web.usual = Answer(piece=100_000, pause_s=0.03)
    lock = {"x": entry(url=web.url(), sha256=sha256(web.body))}
    threads = [threading.Thread(target=fetch, args=(["x"], lock, tmp_path, QUICK)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "deep/file.pth").read_bytes() == web.body
    assert len(web.requests) == 1
    assert "another process is fetching it; waiting" in capsys.readouterr().err


def test_two_processes_at_once_download_once_and_a_kill_hands_over(web, tmp_path):
    web.usual = Answer(piece=1 << 15, pause_s=0.5)  # the second starts before the first is done, on a busy machine too
    code = (
        "import json, sys; from specmaskfoley.weights.download import Transfer;"
        "from specmaskfoley.weights.fetching import fetch; from specmaskfoley.weights.lock import WeightFile;"
        "fetch(['x'], {'x': WeightFile.model_validate(json.loads(sys.argv[1]))}, sys.argv[2], Transfer())"
    )
    made = entry(url=web.url(), sha256=sha256(web.body)).model_dump()
    command = [sys.executable, "-c", code, json.dumps(made), str(tmp_path)]
    first = subprocess.Popen(command)
    part, deadline = tmp_path / "deep/file.pth.part", time.monotonic() + 120
    while (not part.exists() or part.stat().st_size < 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert second.stderr is not None
    assert b"another process is fetching it; waiting" in second.stderr.readline()
    web.usual = Answer()
    first.kill()
    first.wait()
    assert second.wait(120) == 0
    second.stderr.close()
    assert (tmp_path / "deep/file.pth").read_bytes() == web.body
    assert len(web.requests) == 2
    assert web.ranges[1] is not None
    assert web.sent < 1.3 * len(web.body)


def test_changes_are_noticed_and_hashed_once(web, tmp_path, counted):
    path, made = tmp_path / "file.pth", entry(sha256=sha256(b"right"))
    path.write_bytes(b"right")
    checked(path, made)
    checked(path, made)
    assert len(counted) == 1
    os.utime(path, ns=(1, 1))
    assert state_of(path, made) == "present"
    checked(path, made)
    checked(path, made, anew=True)
    assert len(counted) == 3
    path.write_bytes(b"wrong")
    with pytest.raises(WrongFileError, match=r"file\.pth: expected sha256 .* \(weights\.lock\.yaml\), found"):
        checked(path, made)
    assert state_of(path, made) == "present"
    assert state_of(path, entry(size=7)) == "wrong"


def test_a_lock_that_says_more_or_other_than_before_is_checked_anew(tmp_path, counted):
    path = tmp_path / "file.pth"
    path.write_bytes(b"right")
    checked(path, entry(sha256=sha256(b"right")))
    checked(path, entry(sha256=sha256(b"right"), md5=hashlib.md5(b"right").hexdigest()))
    assert len(counted) == 2
    other = entry(sha256=sha256(b"other"))
    assert state_of(path, other) == "wrong"
    with pytest.raises(WrongFileError):
        checked(path, other)


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 1}', '{"size": 1, "mtime_ns": 1, "digests": {"md5": "a"}}'])
def test_a_damaged_record_is_named(tmp_path, text):
    path = tmp_path / "file.pth"
    path.write_bytes(b"right")
    record_path(path).write_text(text)
    with pytest.raises(ValueError, match=r"file\.pth\.sums\.json"):
        checked(path, entry(sha256=sha256(b"right")))


def test_a_folder_of_others_is_read_all_the_same(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(records, "write_json", refuse)
    path = tmp_path / "file.pth"
    path.write_bytes(b"right")
    assert checked(path, entry(sha256=sha256(b"right"))).sha256 == sha256(b"right")
    with pytest.raises(PermissionError):  # else nothing would ever hold the file to what it first was
        checked(path, entry())
    known = {"size": 5, "mtime_ns": 1, "digests": {"sha256": sha256(b"right")}}  # an exported model, downloaded
    record_path(path).write_text(json.dumps(known))
    assert checked(path, entry()).sha256 == sha256(b"right")
    path.write_bytes(b"wrong")
    with pytest.raises(records.WrongFileError, match="recorded on the first fetch"):
        checked(path, entry())


def test_what_is_written_down_of_fetched_files(web, tmp_path):
    lock = {
        "b": entry(url=web.url(), file="b.pth", sha256=sha256(web.body)),
        "a": entry(url=web.url(), file="a.pth", size=len(web.body), commercial="forbidden", licence="CC-BY-NC-4.0"),
    }
    web.body = b"\x80\x02" + web.body[2:]
    lock["b"] = entry(url=web.url(), file="b.pth", sha256=sha256(web.body))
    text = json.dumps(describe(fetch(lock, lock, tmp_path, QUICK), lock))
    assert text == json.dumps(
        {
            name: {
                "file": f"{name}.pth",
                "size": len(web.body),
                "sha256": sha256(web.body),
                "licence": lock[name].licence,
            }
            for name in ("a", "b")
        }
    )
    assert restrictions(lock, lock) == ["no commercial use of a: CC-BY-NC-4.0"]
    assert fetch([], lock, tmp_path / "none", QUICK) == {}
    assert not (tmp_path / "none").exists()
