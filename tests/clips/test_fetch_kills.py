"""Two hundred clips from a bad server, killed four times: nothing is lost, nothing differs."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.tiny import Project, shrink
from helpers.video_server import KINDS, VideoServer, kind_of, make_ids, write_lists

from specmaskfoley.storage.tables import LEDGER_SCHEMA, read_arrays, read_table

CLIPS = 200
TARGETS = ("features", "tokens")
pytest.importorskip("yt_dlp")


def project(root: Path, server: VideoServer, ids: list[str]) -> Project:
    def change(params):
        shrink(params)
        params["data"] |= {"source": "youtube", "lists": "lists"}
        params["fetch"] |= {"youtube": server.address, "interval_s": 0.0, "retries": 3, "timeout_s": 30.0}
        params["run"]["unit_clips"] = 32
        mini = params["profiles"]["mini"]
        mini["prepare"] |= {"silence_db": -60.0, "min_duration_s": 1.0, "shard_rows": 100}
        for training in ("train_sync", "train_semantic", "train_prompt"):
            mini["encoders"][training] |= {"steps": 2, "validate_every": 2}
        mini["train_codec"]["optim"]["steps"] = 4

    made = Project.create(root, change)
    write_lists(root / "lists", ids)
    made.env |= {"SOURCE_DATE_EPOCH": "1700000000", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    return made


def results(found: Project) -> dict[str, bytes]:
    names = ["clips.parquet", "ledger.parquet", "usable.parquet"]
    files = [found.path("data", name) for name in names]
    files += [path for name in TARGETS for path in sorted(found.path("data", name).iterdir())]
    return {str(path.relative_to(found.root)): path.read_bytes() for path in files}


def _fetched(found: Project) -> int:
    return sum(1 for _ in found.path("vggsound").glob("clips/*/*.mp4"))


def _moments(found: Project) -> list[tuple[str, Callable[[], bool]]]:
    """What must have happened before a kill: told by the files, not by a clock that other work makes slow."""

    def fetched(count: int) -> Callable[[], bool]:
        return lambda: _fetched(found) >= count

    def done(stage: str) -> Callable[[], bool]:
        lock = found.root / "dvc.lock"
        return lambda: lock.is_file() and f"\n  {stage}:\n" in lock.read_text(encoding="utf-8")

    moments = [(f"{count} clips", fetched(count)) for count in (1, 100)]
    return moments + [(stage, done(stage)) for stage in ("clips", "prepare")]


@pytest.mark.kill
def test_kills_leave_no_trace(tmp_path):
    ids = make_ids(CLIPS)
    assert sum(name.startswith("-") for name in ids) >= CLIPS // 10
    assert sum("_" in name for name in ids) >= CLIPS // 10
    (tmp_path / "videos").mkdir()
    server = VideoServer(tmp_path / "videos", duration_s=3.2)
    try:
        calm = project(tmp_path / "calm", server, ids)
        calm.dvc("repro", *TARGETS)
        port = server.port
        server.close()
        server = VideoServer(tmp_path / "videos", duration_s=3.2, port=port)  # has forgotten what it did to whom

        killed = project(tmp_path / "killed", server, ids)
        moments, log = random.Random(1), []
        for what, seen in _moments(killed):
            with killed.fork("repro", *TARGETS) as running:
                running.wait_for(seen, what)
                time.sleep(moments.uniform(0.0, 1.5))
                log.append(f"{what} ({_fetched(killed)} clips)")
            # Leaving kills dvc, the stage and its workers: see tiny.Running.
        killed.dvc("repro", *TARGETS)
    finally:
        server.close()
    print(f"killed after: {', '.join(log)}; requests: {server.requests}")
    expected, found = results(calm), results(killed)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []

    ledger = read_table(killed.path("data", "ledger.parquet"), LEDGER_SCHEMA)
    assert len(ledger) == CLIPS
    states = Counter((kind_of(row["clip_id"][:11]), row["state"]) for row in ledger)
    assert {kind: state for kind, state in states} == {kind: state for kind, (state, _, _) in KINDS.items()}
    assert {row["tries"] for row in ledger} == {1}
    assert all(KINDS[kind_of(row["clip_id"][:11])][1] in row["reason"] for row in ledger)
    ready = sorted(row["clip_id"] for row in ledger if row["state"] == "ready")
    for name in TARGETS:
        shards = [read_arrays(killed.path("data", name), split)[0] for split in ("train", "val", "test")]
        assert sorted(clip_id for ids in shards for clip_id in ids) == ready
    assert not list(killed.root.glob("vggsound/unfinished/*"))
    assert not list(killed.root.rglob(".tmp-*"))
