"""The same shards from this process, from a cluster, from a cluster that loses a machine, and after a kill."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers.tiny import Project

from specmaskfoley.storage.tables import read_keys, read_shard

UNIT = 4

# Two machines of one core each on this one; prints the address, and kills the second machine at a word.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


def small_units(params):
    params["run"]["unit_clips"] = UNIT
    params["profiles"]["mini"]["encoders"]["batch_size"] = 2


@pytest.fixture(scope="module")
def before(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project, with small units and nothing extracted."""
    made = project.copy(tmp_path_factory.mktemp("engines") / "project")
    made.change(small_units)
    for name in ("features", "tokens"):
        shutil.rmtree(made.path("data", name))
        for pool in made.path(".work").glob(f"{name}-*"):
            shutil.rmtree(pool)
    return made


@pytest.fixture(scope="module")
def alone(before: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of an undisturbed run on this machine."""
    made = before.copy(tmp_path_factory.mktemp("alone") / "project")
    for name in ("features", "tokens"):
        code, output = made.stage(name)
        assert code == 0, output
    return shards(made)


def shards(project: Project) -> dict[str, bytes]:
    folders = [project.path("data", name) for name in ("features", "tokens")]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for folder in folders for path in folder.iterdir()}


def units(project: Project, stage: str) -> list[Path]:
    return sorted(project.path(".work").glob(f"{stage}-*/unit-*.parquet"))


@pytest.mark.slow
def test_the_pool_gives_the_same_shards_as_the_pipeline(alone, project, tmp_path):
    """Smaller units and batches than those of `dvc repro`, other processes: the same content."""
    assert sorted(alone) == sorted(shards(project))
    for name, content in alone.items():
        mine = tmp_path / Path(name).name
        mine.write_bytes(content)
        ids, arrays = read_shard(mine)
        their_ids, their_arrays = read_shard(project.path("data", name))
        assert ids == their_ids
        assert sorted(arrays) == sorted(their_arrays)
        for column, values in arrays.items():
            np.testing.assert_allclose(values, their_arrays[column], rtol=0.01, atol=0.01, err_msg=column)


@pytest.mark.kill
def test_a_killed_stage_goes_on_and_gives_the_same_bytes(before, alone, tmp_path):
    mine = before.copy(tmp_path / "project")
    for stage, moments in {"features": (2, 4, 6), "tokens": (1,)}.items():  # in units
        kept: dict[str, int] = {}
        for moment in moments:
            with mine.start_stage(stage) as process:
                while len(units(mine, stage)) < moment:
                    assert process.poll() is None
                    time.sleep(0.005)
                process.kill()
            assert not mine.path("data", stage).exists()
            found = {path.name: path.stat().st_mtime_ns for path in units(mine, stage)}
            assert kept.items() <= found.items(), "a finished unit was made again"
            kept = found
        rows = sum(len(read_keys(path)) for path in units(mine, stage))
        code, output = mine.stage(stage)
        assert code == 0, output
        assert f"48 clips, {rows} of them kept from before" in output
    assert shards(mine) == alone


@pytest.mark.slow
def test_a_second_run_makes_nothing(before, alone, tmp_path):
    mine = before.copy(tmp_path / "project")
    assert mine.stage("tokens")[0] == 0
    shutil.rmtree(mine.path("data", "tokens"))
    assert "48 clips, 48 of them kept from before" in mine.stage("tokens")[1]
    assert {name: content for name, content in alone.items() if name.startswith("tokens")} == shards_of(mine, "tokens")


def shards_of(project: Project, name: str) -> dict[str, bytes]:
    return {f"{name}/{path.name}": path.read_bytes() for path in project.path("data", name).iterdir()}


@pytest.mark.ray
def test_a_cluster_that_loses_a_machine_gives_the_same_bytes(before, alone, tmp_path):
    pytest.importorskip("ray")
    mine = before.copy(tmp_path / "project")
    mine.change(lambda params: params["run"].update(engine="ray", workers=1))
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=mine.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    try:
        address = next(line.split()[1] for line in cluster.stdout if line.startswith("address"))
        mine.env["RAY_ADDRESS"] = address
        log = (tmp_path / "log").open("w+")
        stage = subprocess.Popen(
            [sys.executable, "stages/features.py"], cwd=mine.root, env=mine.env, stdout=log, stderr=log
        )
        deadline = time.monotonic() + 240
        while len(units(mine, "features")) < 3:
            assert stage.poll() is None, log.seek(0) or log.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        assert next(line for line in cluster.stdout if line.startswith("killed"))
        assert len(units(mine, "features")) < 48 // UNIT, "killed too late to show anything"
        assert stage.wait(timeout=400) == 0, log.seek(0) or log.read()
        code, output = mine.stage("tokens")
        assert code == 0, output
    finally:
        # Not `ray stop`, which ends the clusters of other tests, too.
        for process in [*psutil.Process(cluster.pid).children(recursive=True), cluster]:
            process.kill()
        cluster.wait()
    assert shards(mine) == alone
