"""Where units are made: in this process, or by the actors of a Ray cluster that shares this file system."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.extraction.worker import Unit, Worker
from specmaskfoley.settings import Params

Lost = dict[str, tuple[str, str]]
"""Paths of clips that could not be read -> state and reason."""


def local(units: Sequence[Unit], params: Params, kind: type[Extractor], clips: int) -> Lost:
    """One device, fed by `run.workers` decoding processes."""
    with Worker(params, kind) as worker:
        return worker.make(units)


def on_ray(units: Sequence[Unit], params: Params, kind: type[Extractor], clips: int) -> Lost:
    """Every GPU of the cluster, or every `run.workers` of its CPUs; a unit whose machine is lost goes to another."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("run.engine=ray needs Ray: pip install 'specmaskfoley[ray]'") from None
    if not ray.is_initialized():
        # RAY_ADDRESS names a cluster; without it, Ray starts on this machine for this stage.
        ray.init(log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = [int(machine.get("CPU", 0)) for machine in machines], sum(int(m.get("GPU", 0)) for m in machines)
    decoders = min(params.run.workers or (max(1, sum(cpus) // gpus) if gpus else 1), max(cpus))
    slots = gpus or sum(count // decoders for count in cpus)
    items = [{"number": number} for number in range(len(units))]
    made = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Actor,
        fn_constructor_args=(params, kind, list(units), decoders, str(Path.cwd())),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(slots, len(units))),
        num_cpus=decoders,
        num_gpus=1 if gpus else 0,
    )
    lost: Lost = {}
    with tqdm(total=clips, desc=f"{kind.stage} on {slots} workers", disable=None) as bar:
        for row in made.iter_rows():
            lost |= {path: (state, reason) for path, (state, reason) in json.loads(row["lost"]).items()}
            bar.update(len(units[row["number"]].clips))
    return lost


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(self, params: Params, kind: type[Extractor], units: Sequence[Unit], decoders: int, root: str) -> None:
        os.chdir(root)  # paths count from the project's directory, which the machines share
        self._units = units
        self._worker = Worker(params, kind, decoders).__enter__()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        unit = self._units[row["number"]]
        lost = {} if unit.target.exists() else self._worker.make([unit], bar=False)
        return {"number": row["number"], "lost": json.dumps(lost)}


ENGINES: dict[str, Callable[[Sequence[Unit], Params, type[Extractor], int], Lost]] = {"local": local, "ray": on_ray}
"""By run.engine."""
