"""What worker processes do in tests; here, because workers import it by a name that no other package has."""

import os
import signal
import time

import numpy as np


def behave(item):
    """Do what the item says; square numbers, after a moment."""
    if isinstance(item, int):
        time.sleep(0.02)
        return item**2
    if item == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "exit":
        os._exit(7)
    if item == "hang":
        time.sleep(1e6)
    if item == "memory":
        return len([np.empty(1 << 24) for _ in range(1000)])
    if item == "error":
        raise ValueError("of the function")
    raise AssertionError(item)


def deaf(item):
    """Does not end on SIGTERM, like C code that never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return behave(item)


def die_once(mark, item):
    """The first call ends its process."""
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def large(item):
    return np.full(1 << 20, item, np.uint8)


def import_late(item):
    """Maps 3 GB of address space, of which little is used."""
    import torch

    return torch.ones(item).sum().item()
