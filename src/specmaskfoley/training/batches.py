"""Which rows a step trains on, and how they get there.

The order is a function of (seed, position) alone: a training that goes on at a step, on any number of processes
(ranks), goes on in the same order. Data is read in groups of neighbouring rows, so an order is drawn in two rounds:
groups are shuffled, then the rows of the many groups that are in memory at once.

Shape letters: n rows, B rows of a step over all ranks, b = B / ranks.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]

WINDOW_ROWS = 4096
"""Rows shuffled among each other: 1.5 GB of the paper's sync features, in groups of 8 from 512 places of the data."""

LANES = 8
"""Position p of the order belongs to lane p mod LANES, which has groups of its own, so that up to eight ranks never
read the same group. The windows of the lanes begin at different positions, which spreads reading evenly over time."""

_READERS = 2
_STEPS_AHEAD = 8
_BATCHES_READY = 2


class Rows(Protocol):
    """Rows in groups that are read together; see `storage.rows.ShardRows`."""

    ids: list[str]
    group_sizes: np.ndarray

    def read(self, group: int) -> Mapping[str, np.ndarray]: ...

    def take(self, rows: Sequence[int]) -> Mapping[str, np.ndarray]: ...


class RowOrder:
    """Every row exactly once an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, group_sizes: np.ndarray, seed: int, *, window: int = WINDOW_ROWS, lanes: int = LANES) -> None:
        self.num_rows = int(group_sizes.sum())
        if self.num_rows < 1:
            raise ValueError("the training split has no rows; see the ledger for the reasons")
        self._sizes, self._seed, self._window, self._lanes = group_sizes, seed, window, lanes
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers at positions 0, 1, ... of the endless order; epochs follow one another."""
        epochs, offsets = np.divmod(positions, self.num_rows)
        return np.array([self.epoch(int(e))[o] for e, o in zip(epochs, offsets, strict=True)], dtype=np.int64)

    def epoch(self, number: int) -> np.ndarray:
        """(n,) the rows of one epoch in order."""
        if number != self._epoch:
            self._epoch, self._order = number, self._draw(number)
        return self._order

    def _draw(self, epoch: int) -> np.ndarray:
        rng, n, lanes = np.random.default_rng([self._seed, epoch]), self.num_rows, self._lanes
        if n <= self._window:
            return rng.permutation(n)
        groups = rng.permutation(len(self._sizes))
        sizes = self._sizes[groups]
        begin = np.concatenate([[0], np.cumsum(self._sizes)])[groups]
        sequence = np.repeat(begin - (np.cumsum(sizes) - sizes), sizes) + np.arange(n)
        order, used = np.empty(n, dtype=np.int64), 0
        length = max(1, self._window // lanes)
        for lane in range(lanes):
            offsets = np.arange((lane - epoch * n) % lanes, n, lanes)
            part = sequence[used : used + len(offsets)]
            used += len(offsets)
            cuts = np.arange(max(1, length * (lane + 1) // lanes), len(part), length)
            order[offsets] = np.concatenate([rng.permutation(window) for window in np.split(part, cuts)])
        return order


class Batches:
    """The rows of every step as tensors, read ahead by threads, which end with the `with` block.

    Memory is bounded: a group is kept from eight steps before its first row is due until its last row is taken.

    Args:
        batch_size: B; rank r takes every ranks-th row of a step, from the r-th on.
        pin: put batches in page-locked memory, from which they get onto a GPU while it computes.
    """

    def __init__(
        self,
        rows: Rows,
        order: RowOrder,
        *,
        batch_size: int,
        steps: range,
        rank: int = 0,
        ranks: int = 1,
        pin: bool = False,
    ) -> None:
        self._rows, self._order, self._size, self._steps = rows, order, batch_size, steps
        self._rank, self._ranks, self._pin = rank, ranks, pin
        self._first = np.concatenate([[0], np.cumsum(rows.group_sizes)])
        self._left: dict[int, np.ndarray] = {}  # epoch -> rows of each group that this rank has still to take
        self._kept: dict[tuple[int, int], Future[Mapping[str, np.ndarray]]] = {}
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(_BATCHES_READY)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="batches", daemon=True)

    def __enter__(self) -> Batches:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # it may be waiting for room in the queue
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self._ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch

    def _produce(self) -> None:
        try:
            with ThreadPoolExecutor(_READERS, "reader") as readers:
                planned: dict[int, tuple[np.ndarray, np.ndarray]] = {}
                ahead = iter(self._steps)
                for step in self._steps:
                    while len(planned) <= _STEPS_AHEAD and (coming := next(ahead, None)) is not None:
                        planned[coming] = self._plan(coming, readers)
                    batch = self._gather(*planned.pop(step))
                    if self._stopped.is_set():
                        readers.shutdown(cancel_futures=True)
                        return
                    self._ready.put(batch)
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _plan(self, step: int, readers: ThreadPoolExecutor) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and rows of this rank at a step; starts reading the groups that hold them."""
        positions = step * self._size + np.arange(self._rank, self._size, self._ranks)
        epochs, rows = positions // self._order.num_rows, self._order.rows(positions)
        for epoch, group in dict.fromkeys(zip(epochs.tolist(), self._group_of(rows).tolist(), strict=True)):
            if epoch not in self._left:
                self._left[epoch] = self._count(epoch, int(positions[epochs == epoch][0]))
            if (epoch, group) not in self._kept:
                self._kept[epoch, group] = readers.submit(self._rows.read, group)
        return epochs, rows

    def _count(self, epoch: int, position: int) -> np.ndarray:
        """Rows that this rank takes of each group, from a position to the end of its epoch."""
        rows = self._order.epoch(epoch)[position - epoch * self._order.num_rows :]
        mine = (position + np.arange(len(rows))) % self._size % self._ranks == self._rank
        return np.bincount(self._group_of(rows[mine]), minlength=len(self._rows.group_sizes))

    def _gather(self, epochs: np.ndarray, rows: np.ndarray) -> Batch:
        groups = self._group_of(rows)
        offsets = rows - self._first[groups]
        batch: Batch = {"row": torch.from_numpy(rows)}
        places: dict[str, np.ndarray] = {}
        for number, (epoch, group, offset) in enumerate(
            zip(epochs.tolist(), groups.tolist(), offsets.tolist(), strict=True)
        ):
            arrays = self._kept[epoch, group].result()
            if not places:
                for name, array in arrays.items():
                    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
                    batch[name] = torch.empty((len(rows), *array.shape[1:]), dtype=dtype, pin_memory=self._pin)
                    places[name] = batch[name].numpy()
            for name, place in places.items():
                place[number] = arrays[name][offset]
            self._left[epoch][group] -= 1
            if not self._left[epoch][group]:
                del self._kept[epoch, group]
        for epoch in [epoch for epoch, left in self._left.items() if not left.any()]:
            del self._left[epoch]
        return batch

    def _group_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first, rows, side="right") - 1


class InMemory:
    """Rows of data in memory, as one group.

    Args:
        ids: of the n rows.
        arrays: column -> (n, ...); without any, a step gets the rows' numbers alone.
    """

    def __init__(self, ids: Sequence[str], **arrays: np.ndarray) -> None:
        self.ids = list(ids)
        self.group_sizes = np.array([len(self.ids)])
        self._arrays = arrays

    def read(self, group: int) -> Mapping[str, np.ndarray]:
        return self._arrays

    def take(self, rows: Sequence[int]) -> Mapping[str, np.ndarray]:
        return {name: array[list(rows)] for name, array in self._arrays.items()}
