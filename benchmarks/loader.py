"""How fast training rows come from the shards, in how much memory, and how well shuffled.

    python benchmarks/loader.py [--rows 50000] [--folder DIR]

Writes shards of the paper's sync features (240 x 768 float16 a clip, 18 GB for 50,000; a fifth of that on the disk, the
other shards are second names), then reads one epoch in batches of 64, three times. A step of 60 ms on a GPU takes 64
clips: 1,067 clips/s.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from specmaskfoley.storage.rows import ShardRows
from specmaskfoley.storage.tables import shard_path, write_shard
from specmaskfoley.training.batches import Batches, RowOrder

FRAMES, WIDTH, SHARD_ROWS, BATCH = 240, 768, 1000, 64
NEEDED = 64 / 0.060


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=50_000)
    arguments.add_argument("--folder", type=Path, help="where the shards are written; default: a temporary directory")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Path(folder), given.rows)
        rows = ShardRows([{folder: ["sync"]}], "train")
        copy = copied_per_second()
        best, memory = 0.0, 0
        for _ in range(3):
            rate, memory = epoch(rows)
            best = max(best, rate)
            print(
                f"one epoch of {len(rows):,} rows: {rate:,.0f} clips/s, resident memory at most {memory / 1e9:.2f} GB",
                flush=True,
            )
        size = FRAMES * WIDTH * 2
        print(
            f"best of three: {best:,.0f} clips/s = {best * size / 1e9:.2f} GB/s, "
            f"{best / NEEDED:.1f} times {NEEDED:,.0f}"
        )
        print(f"copying memory, one core: {copy / 1e9:.2f} GB/s; the loader delivers {best * size / copy:.2f} of that")
        shuffle(rows)


def write(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    sync = rng.standard_normal((SHARD_ROWS, FRAMES, WIDTH), np.float32).astype(np.float16)
    source = folder / "source.parquet"
    write_shard(source, [f"clip-{n}" for n in range(SHARD_ROWS)], {"sync": sync})
    for number in range(rows // SHARD_ROWS):
        if number % 5:
            os.link(shard_path(folder, "train", number - number % 5), shard_path(folder, "train", number))
        else:  # more than the processor's caches, less than the disk
            shutil.copy(source, shard_path(folder, "train", number))
    source.unlink()


def epoch(rows: ShardRows) -> tuple[float, int]:
    """Clips per second of all rows once, and peak resident bytes."""
    steps = range(len(rows) // BATCH)
    peak, running, process = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not running.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()
    with Batches(rows, RowOrder(rows.group_sizes, seed=0), batch_size=BATCH, steps=steps) as batches:
        begin = time.perf_counter()
        for batch in batches:
            assert batch["sync"].shape == (BATCH, FRAMES, WIDTH)
        seconds = time.perf_counter() - begin
    running.set()
    return len(steps) * BATCH / seconds, peak[0]


def copied_per_second() -> float:
    """Bytes that one core copies in a second, from memory to memory."""
    source, target = np.ones(1 << 28, np.uint8), np.empty(1 << 28, np.uint8)
    target[:] = source
    begin = time.perf_counter()
    for _ in range(8):
        target[:] = source
    return 8 * source.nbytes / (time.perf_counter() - begin)


def shuffle(rows: ShardRows) -> None:
    """What the order leaves of the neighbourhood on disk, beside a full permutation and no shuffling."""
    n = len(rows)
    orders = {
        "full permutation": np.random.default_rng(1).permutation(n),
        "this loader": RowOrder(rows.group_sizes, seed=0).epoch(0),
        "groups alone": RowOrder(rows.group_sizes, seed=0, window=8).epoch(0),
        "in order": np.arange(n),
    }
    # A property that neighbours on disk share, as clips of one video do: 0 to 1 through the data, and one a group of 8.
    print(
        "\n| order | correlation of consecutive rows | distance of consecutive rows (1: independent) | "
        "variance of batch means (1: independent), by place | by group |\n| --- | ---: | ---: | ---: | ---: |"
    )
    label = np.random.default_rng(2).standard_normal(n // 8 + 1)[np.arange(n) // 8]
    for name, order in orders.items():
        place = order / n
        correlation = np.corrcoef(place[:-1], place[1:])[0, 1]
        distance = np.abs(np.diff(place)).mean() * 3
        spread = [means(values).var() / (values.var() / BATCH) for values in (place, label[order])]
        print(f"| {name} | {correlation:.4f} | {distance:.3f} | {spread[0]:.2f} | {spread[1]:.2f} |")


def means(values: np.ndarray) -> np.ndarray:
    whole = len(values) // BATCH * BATCH
    return np.asarray(values[:whole].reshape(-1, BATCH).mean(1))


if __name__ == "__main__":
    main()
