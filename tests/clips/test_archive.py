"""VGGSound as tar parts, from a stand-in for the hub, a plain web server and a directory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from helpers.web_server import Answer, Web

from specmaskfoley.clips import archive
from specmaskfoley.clips.listing import list_clips
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import CLIP_LIST_SCHEMA, LISTED, write_table

DATASET = "datasets/Loie/VGGSound"
INSIDE = "scratch/shared/beegfs/someone/vggsound/video/"
LABELS = ("dog barking", "pigeon, dove cooing", 'a "cat"')


class Hub(Web):
    """What the hub has of one data set, commit after commit."""

    def __init__(self):
        super().__init__(b"")
        self.address = self.url(DATASET)
        self.page_size = 1000
        self.held = {}

    def publish(self, commit, parts, others=()):
        """Let a commit of these parts be the newest."""
        api = f"/api/{DATASET}"
        self.files[api] = json.dumps({"id": "Loie/VGGSound", "sha": commit}).encode()
        entries = [{"type": "directory", "path": "extra", "size": 0, "oid": "0"}]
        entries += [{"type": "file", "path": name, "size": 3, "oid": "0"} for name in ("README.md", *others)]
        for name, content in parts.items():
            sums = {"oid": digest(content), "size": len(content), "pointerSize": 136}
            entries.append({"type": "file", "path": name, "size": len(content), "oid": "0", "lfs": sums})
            self.files[f"/{DATASET}/resolve/{commit}/{name}"] = content
        tree = f"{api}/tree/{commit}?recursive=true"
        for first in range(0, len(entries), self.page_size):
            path = tree if first == 0 else f"{tree}&cursor={first}"
            self.files[path] = json.dumps(entries[first : first + self.page_size]).encode()
            if first + self.page_size < len(entries):
                following = self.url(f"{tree}&cursor={first + self.page_size}"[1:])
                self.held[path] = {"Link": f'<{following}>; rel="next"'}

    def _answer(self, request, answer):
        if request.path not in self.files and answer.status is None:
            answer = Answer(status=404, body=b"not found")
        elif request.path in self.held:
            answer = Answer(headers=self.held[request.path])
        super()._answer(request, answer)

    @property
    def downloads(self):
        """Names of the parts asked for, in order."""
        return [path.rsplit("/", 1)[1] for path, _ in self.requests if path.endswith((".gz", ".tar", ".tgz"))]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1769860800")
    monkeypatch.setattr("specmaskfoley.weights.download.random.uniform", lambda *_: 0.0)  # no waits


@pytest.fixture
def hub():
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def settings(hub, tmp_path, monkeypatch):
    """A function that writes params.yaml with some changes of `fetch`, and of `data`, and reads it."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def make(ids, *, limit=None, test_ids=(), **fetch):
        write_lists(folder / "lists", ids, test_ids)
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["data"] |= {"source": "archive", "lists": "lists", "limit": limit}
        params["fetch"] |= {"retries": 2, "timeout_s": 10.0, "archive": hub.address, **fetch}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        return Params.load(folder / "params.yaml")

    return make


def write_lists(folder, train, test=()):
    folder.mkdir(exist_ok=True)
    for split, ids in {"train": train, "val": (), "test": test}.items():
        lines = [f"{name}\t{LABELS[number % len(LABELS)]}\n" for number, name in enumerate(ids)]
        (folder / f"{split}.tsv").write_text("id\tlabel\n" + "".join(lines), encoding="utf-8")


def name(number):
    return f"-video{number:05d}_{number % 300:06d}"


def names(*numbers):
    return [name(number) for number in numbers]


def video(clip_id, size=2000):
    """Bytes that no two clips share, and that do not compress."""
    return b"fake mp4 of " + clip_id.encode() + random.Random(clip_id).randbytes(size)


def digest(content):
    return hashlib.sha256(content).hexdigest()


def pack(members, mode="w:gz"):
    """A tar file of names with their contents, or of headers as they stand."""
    stream = io.BytesIO()
    options = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(fileobj=stream, mode=mode, **options) as tar:
        for member, content in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def part(ids, size=2000, mode="w:gz"):
    return pack([(f"{INSIDE}{clip_id}.mp4", video(clip_id, size)) for clip_id in ids], mode)


def states(rows):
    return {row["clip_id"]: row["state"] for row in rows}


def check_files(rows, size=2000):
    """Every listed clip's file holds its bytes, and the folder no other mp4."""
    listed = [row for row in rows if row["state"] == LISTED]
    for row in listed:
        assert Path(row["path"]).read_bytes() == video(row["clip_id"], size)
    assert {path.as_posix() for path in Path("vggsound").rglob("*.mp4")} == {row["path"] for row in listed}


def big_files():
    """Whatever is left of parts."""
    return sorted(path.name for path in Path("vggsound/parts").glob("*") if not path.name.endswith(".json"))


def test_all_wanted_clips_land_in_the_store(hub, settings):
    parts = {"b.tar.gz": part(names(3, 4, 5)), "a.tar.gz": part(names(0, 1, 2)), "c.tar": part(names(6), mode="w")}
    hub.publish("c1", parts)
    params = settings(names(0, 2, 3, 9), test_ids=names(5))
    rows = list_clips(params)
    assert states(rows) == {name(0): LISTED, name(2): LISTED, name(3): LISTED, name(9): "missing", name(5): LISTED}
    (missing,) = (row for row in rows if row["state"] == "missing")
    assert missing["reason"] == "in none of the 3 parts"
    assert {(row["tries"], row["tried_at"], row["source"]) for row in rows} == {(1, "2026-01-31T12:00:00Z", "archive")}
    assert [row["label"] for row in rows] == [*LABELS, LABELS[0], LABELS[0]]
    check_files(rows)
    assert big_files() == []
    assert hub.downloads == ["a.tar.gz", "b.tar.gz", "c.tar"]
    write_table("list.parquet", rows, CLIP_LIST_SCHEMA)
    assert Path(params.paths.clips, "README.txt").exists()
    asked = len(hub.requests)
    assert list_clips(params) == rows
    assert len(hub.requests) == asked


def test_missing_clips_are_looked_for_again_only_by_name(hub, settings):
    hub.publish("c1", {"a.tar.gz": part(names(0))})
    list_clips(settings(names(0, 1)))
    rows = list_clips(settings(names(0, 1), again=["missing"]))
    assert [(row["state"], row["tries"]) for row in rows] == [(LISTED, 1), ("missing", 2)]
    assert hub.downloads == ["a.tar.gz"]


def test_the_hubs_list_may_have_many_pages(hub, settings):
    hub.page_size = 2
    hub.publish("c1", {f"part_{number}.tar.gz": part(names(number)) for number in range(5)})
    rows = list_clips(settings(names(*range(5))))
    assert set(states(rows).values()) == {LISTED}
    assert hub.downloads == [f"part_{number}.tar.gz" for number in range(5)]


def test_parts_in_a_folder_of_the_hub(hub, settings):
    hub.publish("c1", {"data/one/a.tar.gz": part(names(0)), "data/two/a.tar.gz": part(names(1))})
    rows = list_clips(settings(names(0, 1)))
    assert set(states(rows).values()) == {LISTED}
    check_files(rows)
    assert big_files() == []


def test_the_commit_stays_what_it_was(hub, settings):
    hub.publish("c1", {"a.tar.gz": part(names(0)), "b.tar.gz": part(names(1))})
    list_clips(settings(names(0)))
    pinned = json.loads(Path("vggsound/parts.json").read_text())
    assert pinned[hub.address]["commit"] == "c1"
    assert [entry["name"] for entry in pinned[hub.address]["parts"]] == ["a.tar.gz", "b.tar.gz"]
    old = hub.files[f"/{DATASET}/resolve/c1/b.tar.gz"]
    assert pinned[hub.address]["parts"][1] == {"name": "b.tar.gz", "size": len(old), "sha256": digest(old)}
    hub.publish("c2", {"z.tar.gz": part(names(1, 2))})
    rows = list_clips(settings(names(0, 1)))
    assert set(states(rows).values()) == {LISTED}
    assert [path for path, _ in hub.requests if "resolve" in path] == [
        f"/{DATASET}/resolve/c1/a.tar.gz",
        f"/{DATASET}/resolve/c1/b.tar.gz",
    ]


def test_a_broken_connection_goes_on(hub, settings):
    content = part(names(*range(20)), 50_000)
    hub.publish("c1", {"a.tar.gz": content})
    hub.script = [Answer(), Answer(), Answer(drop_after=300_000), Answer(drop_after=200_000)]
    rows = list_clips(settings(names(*range(20))))
    check_files(rows, 50_000)
    assert len(rows) == 20
    begins = [headers["range"] for path, headers in hub.requests if "resolve" in path and "range" in headers]
    assert len(begins) == 2
    assert hub.sent < len(content) + 400_000


def test_a_download_that_breaks_off_goes_on_in_the_next_run(hub, settings):
    content = part(names(*range(20)), 50_000)
    hub.publish("c1", {"a.tar.gz": content})
    hub.script = [Answer(), Answer(), Answer(drop_after=600_000)]
    hub.usual = Answer(status=503, body=b"")
    params = settings(names(*range(20)))
    with pytest.raises(OSError, match=r"gave up after 3 attempts without progress .*the next run goes on from there"):
        list_clips(params)
    hub.usual = Answer()
    rows = list_clips(params)
    check_files(rows, 50_000)
    assert {row["tries"] for row in rows} == {1}
    assert hub.sent < 1.4 * len(content)


@pytest.mark.parametrize("times", [1, 2])
def test_wrong_content_is_asked_for_twice(hub, settings, times):
    content = part(names(0, 1))
    wrong = content[:-1] + bytes([content[-1] ^ 1])
    hub.publish("c1", {"a.tar.gz": content})
    hub.script = [Answer(), Answer(), *[Answer(body=wrong)] * times]
    params = settings(names(0, 1))
    if times == 1:
        check_files(list_clips(params))
    else:
        with pytest.raises(ValueError, match=f"gz: expected sha256 {digest(content)}, found {digest(wrong)}, twice"):
            list_clips(params)
        assert not list(Path("vggsound").rglob("*.mp4"))
        check_files(list_clips(params))
    assert hub.downloads == ["a.tar.gz"] * (times + 1)
    assert big_files() == []


def test_more_clips_need_no_part_without_a_new_one(hub, settings):
    ids = names(*range(30))
    hub.publish("c1", {f"{number}.tar.gz": part(ids[10 * number : 10 * number + 10]) for number in range(3)})
    extra = [name(99)]  # in none, so that the first run has to read all
    few = list_clips(settings(ids, limit={"train": 3, "val": None, "test": None}, test_ids=extra))
    assert hub.downloads == ["0.tar.gz", "1.tar.gz", "2.tar.gz"]
    more = list_clips(settings(ids, limit={"train": 4, "val": None, "test": None}, test_ids=extra))
    (new,) = set(states(more)) - set(states(few))
    assert hub.downloads[3:] == [f"{ids.index(new) // 10}.tar.gz"]
    check_files(more)
    assert {row["tries"] for row in more} == {1}
    list_clips(settings(ids, limit={"train": 2, "val": None, "test": None}, test_ids=extra))
    assert len(hub.downloads) == 4
    assert set(states(few)) < set(states(more))


def test_parts_may_be_chosen(hub, settings):
    hub.publish("c1", {"a.tar.gz": part(names(0, 1)), "b.tar.gz": part(names(2, 3, 4)), "c.tar.gz": part(names(5, 6))})
    rows = list_clips(settings(names(*range(8)), parts=["c.tar.gz", "b.tar.gz"]))
    assert states(rows) == dict.fromkeys(names(2, 3, 4, 5, 6), LISTED)
    check_files(rows)
    assert hub.downloads == ["b.tar.gz", "c.tar.gz"]
    assert big_files() == []
    rows = list_clips(settings(names(*range(8)), parts=["c.tar.gz"], limit=1))
    assert len(rows) == 1
    assert rows[0]["clip_id"] in names(5, 6)
    assert len(hub.downloads) == 2
    assert big_files() == []
    with pytest.raises(ValueError, match=r"fetch\.parts=d\.tar\.gz: not in .*, which has a\.tar\.gz, b\.tar\.gz, c"):
        list_clips(settings(names(0), parts=["a.tar.gz", "d.tar.gz"]))
    rows = list_clips(settings(names(*range(8))))
    assert states(rows) == {**dict.fromkeys(names(*range(7)), LISTED), name(7): "missing"}
    assert hub.downloads[2:] == ["a.tar.gz"]


def test_a_part_writes_nothing_elsewhere(hub, settings, tmp_path):
    outside = tmp_path / "outside"
    ids = names(*range(12))
    links = [tarfile.TarInfo(f"{INSIDE}{clip_id}.mp4") for clip_id in ids[4:9]]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    for link, kind in zip(links, kinds, strict=True):
        link.type, link.linkname = kind, "../../../etc/passwd"
    folder = tarfile.TarInfo("video")
    folder.type, folder.linkname = tarfile.SYMTYPE, str(outside)
    content = pack(
        [
            (folder, b""),
            (f"video/{ids[0]}.mp4", video(ids[0])),
            (f"../../../../{ids[1]}.mp4", video(ids[1])),
            (f"{outside}/{ids[2]}.mp4", video(ids[2])),
            (f"{ids[3]}.mp4", video(ids[3])),
            *((link, b"") for link in links),
            (f"{INSIDE}{ids[9]}.mp4/inner", b"no clip"),
            (f"{INSIDE}{ids[10]}.mp4.exe", b"no clip"),
            (f"{INSIDE}x{ids[11]}.mp4", b"no clip"),
            ("../../../../evil.mp4", b"no clip"),
            (str(outside / "evil.mp4"), b"no clip"),
        ]
    )
    hub.publish("c1", {"a.tar.gz": content})
    params = settings(ids)
    before = {path for path in tmp_path.rglob("*") if "vggsound" not in path.parts}
    rows = list_clips(params)
    assert states(rows) == {**dict.fromkeys(ids[:4], LISTED), **dict.fromkeys(ids[4:], "missing")}
    check_files(rows)
    assert not any(path.is_symlink() for path in Path("vggsound").rglob("*"))
    after = {path for path in tmp_path.rglob("*") if "vggsound" not in path.parts}
    assert {path.relative_to(tmp_path / "project").as_posix() for path in after - before} == {
        "data",
        "data/clips",
        "data/clips/README.txt",
    }


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("chosen", [False, True])
def test_a_part_damaged_inside_gives_what_comes_before(hub, settings, capsys, mode, share, chosen):
    ids = names(*range(8))
    whole = part(ids, 30_000, mode)
    content = whole[: int(share * len(whole) * (0.93 if mode == "w" else 1))]
    hub.publish("c1", {"a.tar.gz": content, "b.tar.gz": part(names(20), 30_000)})
    rows = list_clips(settings([*ids, name(20)], parts=["a.tar.gz", "b.tar.gz"] if chosen else None))
    found = states(rows)
    kept = [clip_id for clip_id in ids if found.get(clip_id) == LISTED]
    assert kept == ids[: len(kept)]
    assert abs(len(kept) - 8 * share) <= 1.1
    reasons = {row["reason"] for row in rows if row["state"] == "missing"}
    assert all(re.fullmatch(r"in none of the 2 parts; a\.tar\.gz is damaged inside \(.+\)", why) for why in reasons)
    assert reasons or chosen
    assert found[name(20)] == LISTED
    assert {found[clip_id] for clip_id in ids if clip_id in found} <= {LISTED, "missing"}
    check_files(rows, 30_000)
    assert "a.tar.gz is damaged inside" in capsys.readouterr().out
    assert big_files() == []


def test_noise_in_a_part(hub, settings, capsys):
    ids = names(*range(8))
    content = bytearray(part(ids, 30_000))
    content[120_000:121_000] = random.Random(1).randbytes(1000)
    hub.publish("c1", {"a.tar.gz": bytes(content), "b.tar.gz": b"<html>no tar</html>"})
    rows = list_clips(settings(ids))
    found = states(rows)
    assert [found[clip_id] for clip_id in ids[:3]] == [LISTED] * 3
    assert set(found.values()) <= {LISTED, "missing"}
    assert "b.tar.gz is damaged inside" in capsys.readouterr().out


MEMBER = 512 + 30_208  # bytes of a tar that a clip of 30,000 takes up, with its header


def spoilt(how):
    """A part of eight clips with a fault that leaves the first four whole."""
    tar = part(names(*range(8)), 30_000, "w")
    if how == "a wrong header":
        return gzip.compress(tar[: 4 * MEMBER] + b"\xff" * 512 + tar[4 * MEMBER + 512 :], 1)
    if how == "cut between clips":
        return gzip.compress(tar[: 4 * MEMBER], 1)
    if how == "a wrong bit":
        packed = bytearray(gzip.compress(tar, 1))
        packed[5 * MEMBER] ^= 1
        return bytes(packed)
    return gzip.compress(tar, 1)[:-6]


@pytest.mark.parametrize(
    ("how", "kept", "said"),
    [
        ("a wrong header", 4, "bad checksum at byte"),
        ("cut between clips", 4, "it ends without an end mark at byte"),
        ("a wrong bit", 8, "CRC check failed"),
        ("cut in gzip's checksum", 8, "Compressed file ended"),
    ],
)
def test_no_damage_goes_unsaid(hub, settings, capsys, how, kept, said):
    ids = names(*range(8))
    hub.publish("c1", {"a.tar.gz": spoilt(how)})
    rows = list_clips(settings(ids))
    assert [row["state"] for row in rows] == [LISTED] * kept + ["missing"] * (8 - kept)
    assert all(f"a.tar.gz is damaged inside ({said}" in row["reason"] for row in rows[kept:])
    assert f"a.tar.gz is damaged inside ({said}" in capsys.readouterr().out


def test_gzip_files_joined_into_one(hub, settings, capsys):
    ids, tar = names(*range(8)), part(names(*range(8)), 30_000, "w")
    hub.publish("c1", {"a.tar.gz": gzip.compress(tar[: 4 * MEMBER], 1) + gzip.compress(tar[4 * MEMBER :], 1)})
    rows = list_clips(settings(ids))
    assert set(states(rows).values()) == {LISTED}
    check_files(rows, 30_000)
    assert "damaged" not in capsys.readouterr().out


def test_members_of_absurd_size_are_not_read(hub, settings, monkeypatch):
    monkeypatch.setattr(archive, "_LARGEST", 10_000)
    ids = names(0, 1, 2)
    sparse = tarfile.TarInfo(f"{ids[0]}.mp4")
    sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9000"}
    large = video(ids[1], 20_000)
    content = pack([(sparse, b""), (f"{ids[1]}.mp4", large), (f"{ids[2]}.mp4", video(ids[2]))])
    hub.publish("c1", {"a.tar.gz": content})
    rows = list_clips(settings(ids))
    assert states(rows) == {ids[0]: "missing", ids[1]: "missing", ids[2]: LISTED}
    check_files(rows)


def test_a_full_disk_is_said_before_anything_is_written(hub, settings, monkeypatch):
    hub.publish("c1", {"a.tar.gz": part(names(0))})
    params = settings(names(0))
    real = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=100))
        with pytest.raises(ValueError, match=r"needs .* for .*a\.tar\.gz\.part, has 100 B free; make .* fetch\.folder"):
            list_clips(params)
    assert big_files() == []
    check_files(list_clips(params))


def test_an_api_that_fails_in_passing(hub, settings, monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    hub.publish("c1", {"a.tar.gz": part(names(0))})
    hub.script = [Answer(status=503, body=b""), Answer(status=429, body=b""), Answer(), Answer(status=500, body=b"")]
    check_files(list_clips(settings(names(0))))
    assert len(hub.requests) == 6


# A directory, and a plain web server


def copy_to(folder, parts):
    folder.mkdir(exist_ok=True)
    for part_name, content in parts.items():
        (folder / part_name).write_bytes(content)
    sums = "".join(f"{digest(content)}  {part_name}\n" for part_name, content in parts.items())
    (folder / "SHA256SUMS").write_text(sums + f"{'0' * 64} *notes.txt\n")


def test_a_directory_is_read_where_it_lies(hub, settings, tmp_path):
    copied = tmp_path / "copied"
    copy_to(copied, {"b.tar.gz": part(names(1)), "a.tar.gz": part(names(0))})
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in copied.iterdir()}
    params = settings(names(0, 1, 2), archive=str(copied))
    rows = list_clips(params)
    assert states(rows) == {name(0): LISTED, name(1): LISTED, name(2): "missing"}
    check_files(rows)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in copied.iterdir()} == before
    assert big_files() == []
    assert hub.requests == []
    assert list_clips(params) == rows


def test_a_directory_by_its_file_address(settings, tmp_path):
    copied = tmp_path / "my copy"
    copy_to(copied, {"a.tar.gz": part(names(0))})
    rows = list_clips(settings(names(0), archive=copied.as_uri()))
    assert states(rows) == {name(0): LISTED}
    check_files(rows)


def test_a_directory_may_gain_parts_but_none_may_change(settings, tmp_path, capsys):
    copied, first = tmp_path / "copied", part(names(0))
    copy_to(copied, {"a.tar.gz": first})
    make = {"archive": str(copied), "again": ["missing"]}
    assert states(list_clips(settings(names(0, 1), **make))) == {name(0): LISTED, name(1): "missing"}
    copy_to(copied, {"a.tar.gz": first, "b.tar.gz": part(names(1))})
    assert set(states(list_clips(settings(names(0, 1), **make))).values()) == {LISTED}
    assert "new parts: b.tar.gz; clips missing before: fetch.again=[missing]" in capsys.readouterr().out
    other = part(names(2))
    copy_to(copied, {"a.tar.gz": other})
    said = rf"a\.tar\.gz had sha256 {digest(first)}, has {digest(other)}; .* remove vggsound/parts\.json"
    with pytest.raises(ValueError, match=said):
        list_clips(settings(names(0, 1, 2), **make))
    Path("vggsound/parts.json").unlink()
    assert set(states(list_clips(settings(names(0, 1, 2), **make))).values()) == {LISTED}


def test_a_changed_part_of_a_directory(settings, tmp_path):
    copied, content = tmp_path / "copied", part(names(0))
    copy_to(copied, {"a.tar.gz": content})
    params = settings(names(0, 1), archive=str(copied))
    list_clips(params)
    other = part(names(1))
    (copied / "a.tar.gz").write_bytes(other)
    Path("vggsound/members").joinpath(f"{digest(content)[:16]}.json").unlink()
    with pytest.raises(
        ValueError, match=f"a.tar.gz: expected sha256 {digest(content)}, found {digest(other)}; copy it"
    ):
        list_clips(settings(names(0, 1), archive=str(copied), again=["missing"]))
    (copied / "a.tar.gz").unlink()
    with pytest.raises(ValueError, match=r"a\.tar\.gz is in its SHA256SUMS, but not there"):
        list_clips(settings(names(0, 1), archive=str(copied), again=["missing"]))


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        (None, r"SHA256SUMS is missing; make it: sha256sum"),
        ("", r"no \.tar or \.tar\.gz there"),
        (f"{'0' * 64}  a.tar.gz\nnonsense\n", r"SHA256SUMS:2: expected <sha256>  <name>, found 'nonsense'"),
        (f"{'0' * 64}  ../a.tar.gz\n", r"SHA256SUMS:1: expected"),
        (f"{'0' * 63}  a.tar.gz\n", r"SHA256SUMS:1: expected"),
    ],
)
def test_wrong_sums(settings, tmp_path, sums, said):
    if sums is not None:
        (tmp_path / "SHA256SUMS").write_text(sums)
    with pytest.raises(ValueError, match=said):
        list_clips(settings(names(0), archive=str(tmp_path)))


def test_a_plain_web_server(hub, settings):
    content = part(names(0, 1))
    hub.files = {
        "/mirror/SHA256SUMS": f"{digest(content)}  a b.tar.gz\n".encode(),
        "/mirror/a%20b.tar.gz": content,
    }
    rows = list_clips(settings(names(0, 1), archive=hub.url("mirror/")))
    assert set(states(rows).values()) == {LISTED}
    check_files(rows)
    assert [path for path, _ in hub.requests] == ["/mirror/SHA256SUMS", "/mirror/a%20b.tar.gz"]
    assert big_files() == []


@pytest.mark.parametrize("place", ["datasets/vggsound", "datasets/some/vggsound"])
def test_a_plain_web_server_whose_address_looks_like_the_hubs(hub, settings, place):
    content = part(names(0))
    hub.files = {f"/{place}/SHA256SUMS": f"{digest(content)}  a.tar.gz\n".encode(), f"/{place}/a.tar.gz": content}
    rows = list_clips(settings(names(0), archive=hub.url(place)))
    assert states(rows) == {name(0): LISTED}


def test_another_archive_with_the_same_names(hub, settings, monkeypatch):
    """What is left of one archive's part does not pass for another's."""
    hub.publish("c1", {"a.tar.gz": part(names(0, 1))})
    with monkeypatch.context() as patch:
        patch.setattr(archive._Archive, "_drop", lambda *_: None)  # as if a kill had come before
        list_clips(settings(names(0)))
    assert len(big_files()) == 1
    content = part(names(2))
    hub.files |= {"/mirror/SHA256SUMS": f"{digest(content)}  a.tar.gz\n".encode(), "/mirror/a.tar.gz": content}
    rows = list_clips(settings(names(0, 2), archive=hub.url("mirror")))
    assert states(rows) == {name(0): LISTED, name(2): LISTED}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>Please sign in</html>", r"expected the hub's JSON, found '<html>Please sign in.*; see fetch\.archive"),
        (None, r"cannot be read \(404 .*\); see fetch\.archive"),
    ],
)
def test_an_answer_that_is_not_the_hubs(hub, settings, body, said):
    if body is not None:
        hub.files[f"/api/{DATASET}"] = body
    with pytest.raises(ValueError, match=said):
        list_clips(settings(names(0)))


def test_without_a_network_the_archive_is_one_line(settings):
    said = r"cannot be read \(Failed to establish a new connection: .*refused\); see fetch\.archive and fetch\.proxy$"
    with pytest.raises(ValueError, match=said) as caught:
        list_clips(settings(names(0), archive="http://127.0.0.1:9/mirror"))
    assert "\n" not in str(caught.value)


def test_a_hub_without_hashes_or_parts(hub, settings):
    hub.publish("c1", {}, others=["small.tar"])
    with pytest.raises(ValueError, match=r"states no sha256 of small\.tar"):
        list_clips(settings(names(0)))
    hub.publish("c2", {})
    with pytest.raises(ValueError, match=rf"fetch\.archive='{hub.address}': no \.tar or \.tar\.gz there"):
        list_clips(settings(names(0)))


# Kills

CHILD = """
import os, signal, sys
from pathlib import Path
from specmaskfoley.clips import archive, fetched
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import CLIP_LIST_SCHEMA, write_table
from specmaskfoley.weights import download

at, left = sys.argv[1], int(sys.argv[2])
conclude, discard, write = fetched.FetchedClips.conclude, download.discard, Path.write_bytes

def die_at(place):
    global left
    if place == at:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

def watched_conclude(self, *arguments):
    die_at("before a record")
    conclude(self, *arguments)
    die_at("after a record")

def watched_discard(path):
    die_at("checked")
    discard(path)

def watched_write(self, content):
    if at == "half a clip" and self.suffix == ".mp4":
        write(self, content[: len(content) // 2])
        die_at(at)
    return write(self, content)

fetched.FetchedClips.conclude, download.discard, Path.write_bytes = watched_conclude, watched_discard, watched_write
write_table("clips.parquet", archive.list_clips(Params.load()), CLIP_LIST_SCHEMA)
"""


def child(at="never", left=0):
    return subprocess.Popen([sys.executable, "-c", CHILD, at, str(left)])


def listing_in(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert child().wait() == 0
    return Path("clips.parquet").read_bytes()


@pytest.fixture
def undisturbed(hub, settings, tmp_path, monkeypatch):
    """What one run gives that nobody disturbs; then the hub has sent nothing yet, and the project is clean."""

    def make(ids):
        settings(ids)
        other = tmp_path / "undisturbed"
        other.mkdir()
        for path in ("params.yaml", "lists"):
            os.symlink(tmp_path / "project" / path, other / path)
        table = listing_in(other, monkeypatch)
        files = {path.relative_to(other): path.read_bytes() for path in other.rglob("*.mp4")}
        assert files
        monkeypatch.chdir(tmp_path / "project")
        hub.requests.clear()
        hub.sent = 0
        return table, files

    return make


@pytest.mark.kill
def test_a_kill_while_a_part_is_downloaded(hub, undisturbed, tmp_path, monkeypatch):
    content = {"a.tar.gz": part(names(*range(10)), 100_000), "b.tar.gz": part(names(10, 11), 100_000)}
    hub.publish("c1", content)
    expected = undisturbed(names(*range(13)))
    hub.usual = Answer(piece=1 << 14, pause_s=0.02)
    process = child()
    while hub.sent < 500_000:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    hub.usual = Answer()
    project = tmp_path / "project"
    table = listing_in(project, monkeypatch)
    assert (table, {path.relative_to(project): path.read_bytes() for path in project.rglob("*.mp4")}) == expected
    assert hub.downloads == ["a.tar.gz", "a.tar.gz", "b.tar.gz"]
    begin = int(dict(hub.requests[-2][1])["range"].removeprefix("bytes=").rstrip("-"))
    assert begin > 300_000
    assert hub.sent < sum(map(len, content.values())) + 250_000


@pytest.mark.kill
def test_kills_while_clips_are_taken_out(hub, undisturbed, tmp_path, monkeypatch):
    content = {"a.tar.gz": part(names(*range(10))), "b.tar.gz": part(names(*range(10, 20)))}
    hub.publish("c1", content)
    expected = undisturbed(names(*range(22)))
    project = tmp_path / "project"
    for at, left in [
        ("checked", 0),
        ("before a record", 3),
        ("before a record", 2),
        ("half a clip", 0),
        ("after a record", 3),
        ("checked", 0),
        ("after a record", 0),
        ("before a record", 9),  # the first of two that are missing
        ("after a record", 0),
    ]:
        assert child(at, left).wait() == -signal.SIGKILL, (at, left)
        assert all(path.read_bytes() == video(path.stem) for path in project.glob("vggsound/clips/**/*.mp4"))
    table = listing_in(project, monkeypatch)
    files = {path.relative_to(project): path.read_bytes() for path in project.rglob("*.mp4")}
    assert files == expected[1]
    assert table == expected[0]
    assert hub.downloads == ["a.tar.gz", "b.tar.gz"]
    assert big_files() == []
    assert not Path("vggsound/unfinished").exists()
