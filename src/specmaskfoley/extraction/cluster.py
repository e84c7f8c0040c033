"""Units made by the actors of a Ray cluster whose machines share this file system."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.extraction.worker import Unit, Worker
from specmaskfoley.processes.isolation import Lost
from specmaskfoley.settings import Params


def make_on_ray(units: Sequence[Unit], params: Params, extractor: type[Extractor]) -> dict[str, Lost]:
    """Use every GPU of the cluster, or groups of `run.workers` CPUs; if a machine is lost, another makes its unit.

    Raises:
        ValueError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("run.engine=ray needs Ray: pip install 'specmaskfoley[ray]'") from None
    if not ray.is_initialized():
        # RAY_ADDRESS names a cluster. Without it Ray starts on this machine for this stage: left to itself it would
        # first try the cluster last started here, for minutes if that one has died.
        address = os.environ.get("RAY_ADDRESS") or "local"
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = [int(machine.get("CPU", 0)) for machine in machines], sum(int(m.get("GPU", 0)) for m in machines)
    decoders = min(params.run.workers or (max(1, sum(cpus) // gpus) if gpus else 1), max(cpus))
    slots = gpus or sum(count // decoders for count in cpus)
    items = [{"number": number} for number in range(len(units))]
    made = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Actor,
        fn_constructor_args=(params, extractor, list(units), decoders, str(Path.cwd())),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(slots, len(units))),
        num_cpus=decoders,
        num_gpus=1 if gpus else 0,
    )
    lost: dict[str, Lost] = {}
    clips = sum(len(unit.clips) for unit in units)
    with tqdm(total=clips, desc=f"{extractor.stage} on {slots} workers", disable=None) as bar:
        for result in made.iter_rows():
            lost |= {path: Lost(state, reason) for path, state, reason in json.loads(result["lost"])}
            bar.update(len(units[result["number"]].clips))
    return lost


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(
        self, params: Params, extractor: type[Extractor], units: Sequence[Unit], decoders: int, root: str
    ) -> None:
        os.chdir(root)  # paths count from the project's directory, which the machines share
        self._units = units
        self._worker = Worker(params, extractor, decoders).__enter__()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        unit = self._units[item["number"]]
        lost = {} if unit.target.exists() else self._worker.make([unit], bar=False)
        return {
            "number": item["number"],
            "lost": json.dumps([[path, clip.state, clip.reason] for path, clip in lost.items()]),
        }
