"""Wall and processor time and peak memory of every stage, run one after the other: python benchmarks/pipeline.py

Meant for a fresh clone; stages that DVC finds unchanged take next to no time. Memory is the sum over all processes of a
stage, sampled every two seconds. With --burners 2 it runs beside two processes that keep a core busy each. With
--lanes 2 it is one `specmaskfoley repro --lanes 2` of all stages.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil
import yaml

INTERVAL_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--burners", type=int, default=0)
    parser.add_argument("--lanes", type=int)
    arguments = parser.parse_args()
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.burners)]
    try:
        print("| stage | seconds | processor seconds | peak MB |\n| --- | ---: | ---: | ---: |", flush=True)
        if arguments.lanes:
            show("all", run(["specmaskfoley", "repro", "--lanes", str(arguments.lanes)]))
            return
        with open("dvc.yaml", encoding="utf-8") as file:
            stages = list(yaml.safe_load(file)["stages"])
        measured = [show(stage, run(["dvc", "repro", "--single-item", stage])) for stage in stages]
        wall, busy, memory = zip(*measured, strict=True)
        show("all", (sum(wall), sum(busy), max(memory)))
    finally:
        for burner in burners:
            burner.kill()


def show(what: str, measured: tuple[float, float, float]) -> tuple[float, float, float]:
    print(f"| {what} | " + " | ".join(f"{value:.0f}" for value in measured) + " |", flush=True)
    return measured


def run(command: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of a command with all its children."""
    begin, before, peak = time.perf_counter(), busy_s(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, memory(watched))
        time.sleep(INTERVAL_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed; run it by hand to see why")
    return time.perf_counter() - begin, busy_s() - before, peak / 1e6


def busy_s() -> float:
    """Processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(process: psutil.Process) -> int:
    """Proportional set size of a process and its children, so that shared pages count once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss if hasattr(one.memory_full_info(), "pss") else one.memory_info().rss
        except psutil.Error:
            continue  # it ended between the two calls
    return total


if __name__ == "__main__":
    main()
