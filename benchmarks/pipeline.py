"""Wall time and peak memory of every stage, run one after the other: python benchmarks/pipeline.py

Meant for a fresh clone; stages that DVC finds unchanged take no time. Memory is the sum over a stage's processes,
sampled twice a second.
"""

import subprocess
import time

import psutil
import yaml

INTERVAL_S = 0.5


def main() -> None:
    with open("dvc.yaml", encoding="utf-8") as file:
        stages = list(yaml.safe_load(file)["stages"])
    print("| stage | seconds | peak MB |\n| --- | ---: | ---: |", flush=True)
    total_s, total_mb = 0.0, 0.0
    for stage in stages:
        seconds, megabytes = run(["dvc", "repro", "--single-item", stage])
        print(f"| {stage} | {seconds:.0f} | {megabytes:.0f} |", flush=True)
        total_s, total_mb = total_s + seconds, max(total_mb, megabytes)
    print(f"| all | {total_s:.0f} | {total_mb:.0f} |")


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MB of a command with all its children."""
    begin, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, memory(watched))
        time.sleep(INTERVAL_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed; run it by hand to see why")
    return time.perf_counter() - begin, peak / 1e6


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
