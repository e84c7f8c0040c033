"""Time of a `dvc repro` that finds nothing to do, over 200,000 clips: python benchmarks/ledger_noop.py [--clips N]

In a throw-away copy of the project, profile vggsound, data.source=folder with lists of one's own, every output that
dvc.yaml names is made up: tables with a row for each clip, the real number of shards, small files for the rest. `dvc
commit` then writes the lock as a run would have, and what is timed is `dvc repro` and `dvc status`, with a warm disk
cache. The videos are empty files in fetch.folder, as fetched ones lie, of which DVC should take no notice.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from specmaskfoley.storage.tables import CLIP_LIST_SCHEMA, LEDGER_SCHEMA, USABLE_SCHEMA

ROOT = Path(__file__).resolve().parents[1]
PROFILE = "vggsound"
LIMIT_S = 10.0
SHARD_BYTES = 100_000


def copy_project(root: Path) -> None:
    """What git would take, with an identity and a cache of its own."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith(("metrics/", "tests/")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    run(root, "git", "init", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "commit", "-q", "-m", "A copy")


def settle(root: Path) -> dict[str, Any]:
    """Choose profile and source; the settings."""
    path = root / "params.yaml"
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["profile"] = PROFILE
    params["data"] |= {"source": "folder", "folder": params["fetch"]["folder"], "lists": "lists"}
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return params


def rows_of(clips: int, folder: str) -> pa.Table:
    """A ledger in which three clips of four are ready."""
    draw = np.random.default_rng(0)
    ids = [f"{hashlib.sha256(str(n).encode()).hexdigest()[:11]}_{n % 600:06d}" for n in range(clips)]
    ready = draw.random(clips) < 0.75
    splits = np.where(draw.random(clips) < 0.08, "test", np.where(draw.random(clips) < 0.01, "val", "train"))
    there: dict[str, Any] = {
        "sha256": [hashlib.sha256(name.encode()).hexdigest() for name in ids],
        "size_bytes": draw.integers(200_000, 3_000_000, clips),
        "duration_s": 10 + draw.random(clips) * 0.1,
        "fps": draw.choice([25.0, 29.97, 30.0], clips),
        "width": draw.choice([480, 640], clips).astype(np.int32),
        "height": np.full(clips, 360, np.int32),
        "rotation": np.zeros(clips, np.int32),
        "audio_rate": np.full(clips, 44_100, np.int32),
        "audio_channels": np.full(clips, 2, np.int32),
        "video_start_s": np.zeros(clips),
        "audio_start_s": np.zeros(clips),
        "padded_s": np.zeros(clips),
        "decoder": np.full(clips, "PyAV 16.0.0, FFmpeg 8.0"),
    }
    columns: dict[str, Any] = {
        "clip_id": ids,
        "path": [f"{folder}/clips/{hashlib.sha256(name.encode()).hexdigest()[:2]}/{name}.mp4" for name in ids],
        "label": [f"sound {n % 309}" for n in range(clips)],
        "split": splits,
        "source": np.full(clips, "folder"),
        "state": np.where(ready, "ready", "missing"),
        "reason": np.where(ready, "", "no such file"),
        **{name: pa.array(values, mask=~ready) for name, values in there.items()},
    }
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(clips, field.type)
        for field in LEDGER_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=LEDGER_SCHEMA)


def outputs(value: Any) -> list[str]:
    """The paths in `outs`, `metrics` or `plots` of a stage, with or without options."""
    return [next(iter(item)) if isinstance(item, dict) else item for item in value or []]


def make_up(root: Path, params: dict[str, Any], clips: int) -> dict[str, int]:
    """Everything that dvc.yaml says a stage makes; directory -> files in it, where these are shards."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    paths = params["paths"]
    ledger = rows_of(clips, params["fetch"]["folder"])
    ready = ledger.filter(pc.equal(ledger["state"], "ready"))
    for video in map(root.joinpath, ready["path"].to_pylist()):
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
    tables = {
        paths["clip_list"]: ledger.select(CLIP_LIST_SCHEMA.names).cast(CLIP_LIST_SCHEMA),
        paths["ledger"]: ledger,
        paths["usable"]: ready.select(USABLE_SCHEMA.names),
    }
    shards = -(-clips // params["profiles"][PROFILE]["prepare"]["shard_rows"])
    made: dict[str, int] = {}
    for stage in stages.values():
        for raw in [item for kind in ("outs", "metrics", "plots") for item in outputs(stage.get(kind))]:
            name = raw
            for key, value in paths.items():
                name = name.replace(f"${{paths.{key}}}", value)
            if "${" in name:
                raise SystemExit(f"dvc.yaml: {raw}: not of paths in params.yaml; teach this benchmark what it is")
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in tables:
                pq.write_table(tables.pop(name), path)
            elif path.suffix == ".json":
                path.write_text("{}\n")
            elif path.suffix:
                path.write_text("made up\n")
            else:
                sharded = name in (paths["features"], paths["tokens"])
                made |= {name: shards} if sharded else {}
                path.mkdir()
                for number in range(shards if sharded else 2):
                    content = os.urandom(SHARD_BYTES if sharded else 10)
                    (path / f"train-{number:05d}.parquet").write_bytes(content)
    if tables:
        raise SystemExit(f"dvc.yaml: no stage makes {', '.join(tables)}; teach this benchmark what took its place")
    return made


def run(root: Path, *command: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    site = {"DVC_SITE_CACHE_DIR": str(root.parent / "site"), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=root, env=env | site, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def timed(root: Path, *command: str, expected: str, times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        told = run(root, sys.executable, "-m", "dvc", *command)
        seconds.append(time.perf_counter() - begin)
        if expected not in told:
            raise SystemExit(f"dvc {' '.join(command)} did not say {expected!r}:\n{told}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        root.mkdir()
        copy_project(root)
        params = settle(root)
        made = make_up(root, params, options.clips)
        begin = time.perf_counter()
        run(root, sys.executable, "-m", "dvc", "commit", "-f", "-q")
        print(f"{options.clips} clips; shards: {made}; dvc commit: {time.perf_counter() - begin:.1f} s\n")
        print("| command | seconds | median |\n| --- | --- | ---: |")
        slowest = 0.0
        for command, expected in {"repro": "up to date", "status": "up to date"}.items():
            seconds = timed(root, command, expected=expected, times=options.times)
            slowest = max(slowest, *seconds)
            print(f"| dvc {command} | {', '.join(f'{s:.1f}' for s in seconds)} | {statistics.median(seconds):.1f} |")
        usable = params["paths"]["usable"]
        pq.write_table(pq.read_table(root / usable).slice(1), root / usable)
        if "changed deps" not in (told := run(root, sys.executable, "-m", "dvc", "status")):
            raise SystemExit(f"a clip less in {usable} went unnoticed, so the times say nothing:\n{told}")
    if slowest > LIMIT_S:
        raise SystemExit(f"more than {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
