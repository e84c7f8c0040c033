"""Fréchet distance against scipy.linalg.sqrtm: python benchmarks/frechet.py [--rounds 5] [--threads 1 2] [--json FILE]

The common form is np.cov of both sets and sqrtm of the covariances' product. Each number of BLAS threads has a process
of its own, in which the two take turns on the same arrays (float32, spectra that fall off as those of embeddings do);
seconds are medians, and so are the ratios, each of two neighbouring runs. Both parts of either form are told, too:
covariances, whose multiplications no form can do without, and what is done with them. A busy machine slows many threads
more than one, since BLAS threads wait for each other: look at both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CASES = {"15,000 x 768": (15_000, 768), "500 x 768 (rank-deficient)": (500, 768)}
TOLERANCE = 1e-3

Result = dict[str, Any]


def measure(rounds: int) -> Result:
    """All cases with the BLAS threads that this process was started with."""
    # Only here: BLAS reads the environment when it is loaded.
    import numpy as np
    import scipy
    from scipy import linalg

    from specmaskfoley.metrics.frechet import _moments, frechet_distance

    def features(seed: int, n: int, d: int) -> np.ndarray:
        x = np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)
        x /= np.sqrt(1 + np.arange(d, dtype=np.float32) / 8)
        return x + 0.5 * np.roll(x, -1, axis=1) + np.float32(0.1 * seed)

    def blas(package: Any) -> str:
        found = package.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{package.__name__} {package.__version__} ({found['name']} {found['version']})"

    def official(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """The distance, and the seconds that the covariances took."""
        begin = time.perf_counter()
        shift = x.mean(axis=0) - y.mean(axis=0)
        cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        covariances = time.perf_counter() - begin
        root = linalg.sqrtm(cov_x @ cov_y)
        return float(shift @ shift + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root.real)), covariances

    found: Result = {"libraries": [blas(np), blas(scipy)], "cases": {}}
    for name, (n, d) in CASES.items():
        x, y = features(1, n, d), features(2, n, d)
        counts = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n))
        times: dict[str, list[float]] = {"sqrtm form": [], "of it covariances": [], "ours": [], "of it moments": []}
        times["a resample by weights"] = []
        frechet_distance(x[:2], y[:2])  # neither pays for what a first call loads
        linalg.sqrtm(np.eye(2))
        for _ in range(rounds):
            (theirs, covariances), seconds = timed(partial(official, x, y))
            times["sqrtm form"].append(seconds)
            times["of it covariances"].append(covariances)
            distance, seconds = timed(partial(frechet_distance, x, y))
            times["ours"].append(seconds)
            ones = np.ones(n)
            times["of it moments"].append(sum(timed(partial(_moments, z, ones))[1] for z in (x, y)))
            _, seconds = timed(partial(frechet_distance, x, y, counts))
            times["a resample by weights"].append(seconds)
        found["cases"][name] = {"seconds": times, "sqrtm": theirs, "ours": distance}
    return found


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def measure_with(threads: int, rounds: int) -> Result:
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [sys.executable, __file__, "--measure", "--rounds", str(rounds)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: Result = json.loads(done.stdout)
    return found


def report(results: dict[int, Result]) -> None:
    print("| case | BLAS threads | sqrtm form, s | of it covariances | ours, s | of it moments | sqrtm form / ours |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for threads, result in results.items():
        for name, case in result["cases"].items():
            seconds = case["seconds"]
            median = {part: statistics.median(values) for part, values in seconds.items()}
            ratios = sorted(a / b for a, b in zip(seconds["sqrtm form"], seconds["ours"], strict=True))
            print(
                f"| {name} | {threads} | {median['sqrtm form']:.3f} | {median['of it covariances']:.3f} | "
                f"{median['ours']:.3f} | {median['of it moments']:.3f} | "
                f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
            )
    print("\n| case | BLAS threads | sqrtm form | ours | relative difference | a resample by weights, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for threads, result in results.items():
        for name, case in result["cases"].items():
            resample = statistics.median(case["seconds"]["a resample by weights"])
            values = f"{case['sqrtm']:.7f} | {case['ours']:.7f} | {difference(case):.1e}"
            print(f"| {name} | {threads} | {values} | {resample:.3f} |")


def difference(case: Result) -> float:
    return float(abs(case["ours"] - case["sqrtm"]) / case["sqrtm"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores}), help="default: 1 and all cores")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # what this file starts itself with
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.rounds)))
        return
    results = {threads: measure_with(threads, options.rounds) for threads in options.threads}
    print(f"{', '.join(next(iter(results.values()))['libraries'])}; {cores} cores, {options.rounds} rounds, medians\n")
    report(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    worst = max(difference(case) for result in results.values() for case in result["cases"].values())
    if worst > TOLERANCE:
        raise SystemExit(f"the two differ by {worst:.1e}, more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
