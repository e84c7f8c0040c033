"""An item that hangs, crashes or uses up all memory costs no other item."""

import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from helpers.pool_work import behave, deaf, die_once, import_late, large

from specmaskfoley.processes.isolation import IsolatedPool, Lost, parallel_map

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and memory limits of POSIX")


@pytest.fixture
def pool():
    with IsolatedPool(2, timeout_s=8.0, memory_gb=0.5) as made:
        yield made


def test_lost_items_lose_no_neighbour(pool):
    items = [1, 2, "segfault", 3, "memory", 4, 5, "exit", "hang", 6, "killed", *range(7, 30)]
    results = list(pool.map(behave, items))
    lost = {item: result for item, result in zip(items, results, strict=True) if isinstance(result, Lost)}
    assert lost == {
        "segfault": Lost("crashed", "reading it ended its process by SIGSEGV"),
        "memory": Lost("crashed", "reading it took more memory than prepare.clip_memory_gb=0.5"),
        "exit": Lost("crashed", "reading it ended its process with exit code 7"),
        "hang": Lost("timeout", "reading it took longer than prepare.clip_timeout_s=8"),
        "killed": Lost("crashed", "reading it ended its process by SIGKILL (out of memory?)"),
    }
    numbers = [item for item in items if isinstance(item, int)]
    assert [result for result in results if not isinstance(result, Lost)] == [number**2 for number in numbers]
    assert list(pool.map(behave, [3, 4])) == [9, 16], "and the pool can be used again"


def test_nothing_but_lost_items(pool):
    states = [result.state for result in pool.map(behave, ["segfault"] * 6)]
    assert states == ["crashed"] * 6


@pytest.mark.kill
def test_what_does_not_end_when_asked_is_killed(pool):
    begin = time.monotonic()
    results = list(pool.map(deaf, ["hang", 2, 3]))
    assert (results[0].state, results[1:]) == ("timeout", [4, 9])
    assert time.monotonic() - begin < 20


def test_a_process_killed_from_outside_costs_nothing(pool, tmp_path):
    assert list(pool.map(partial(die_once, tmp_path / "mark"), [1, 2, 3])) == [1, 2, 3]


def test_errors_of_the_function_are_the_callers(pool):
    with pytest.raises(ValueError, match="of the function"):
        list(pool.map(behave, [1, "error", 2]))
    assert list(pool.map(math.sqrt, [4.0])) == [2.0]
    assert list(pool.map(math.sqrt, [])) == []


def test_a_late_import_fits_in(tmp_path):
    pytest.importorskip("torch")
    with IsolatedPool(1, timeout_s=100.0, memory_gb=1.5) as pool:
        assert list(pool.map(import_late, [3, 4])) == [3.0, 4.0]


def test_results_do_not_pile_up(pool):
    sent = []

    class Items(list):
        def __iter__(self):
            for item in range(40):
                sent.append(item)
                yield item

    results = pool.map(large, Items(range(40)), ahead=4)
    for number in range(10):
        assert next(results)[0] == number
        assert len(sent) <= number + 4
    results.close()
    assert next(pool.map(large, [7]))[0] == 7, "leaving early leaves the pool usable"


def test_import_is_light():
    code = "import sys, specmaskfoley.processes.isolation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_do_not_run_the_script_that_starts_them(tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(
        "import math, __main__\n"
        "print('running')\n"
        "from specmaskfoley.processes.isolation import IsolatedPool\n"
        "with IsolatedPool(2, timeout_s=60, memory_gb=1) as pool:\n"
        "    print(list(pool.map(math.sqrt, [4.0] * 3)))\n"
        "print(__main__.__file__ == __file__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split("\n") == ["running", "[2.0, 2.0, 2.0]", "True", ""]


def test_workers_that_cannot_start_end_the_stage(tmp_path, monkeypatch):
    ends = "import os, sys\nif any('spawn_main' in word for word in sys.orig_argv): os._exit(3)\n"
    (tmp_path / "sitecustomize.py").write_text(ends)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with (
        IsolatedPool(2, timeout_s=60, memory_gb=1) as pool,
        pytest.raises(ValueError, match=r"before they do anything.*run\.workers"),
    ):
        list(pool.map(math.sqrt, [4.0] * 9))


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
@pytest.mark.parametrize(
    "call",
    [
        "with IsolatedPool(2, timeout_s=60, memory_gb=1) as pool: list(pool.map(work, [1, 2]))",
        "parallel_map(work, [1, 2], workers=2, title='sleeping')",
    ],
    ids=["IsolatedPool", "parallel_map"],
)
def test_workers_of_a_killed_stage_end(tmp_path, call):
    (tmp_path / "sleeping.py").write_text(
        "import os, time\ndef work(i):\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
    )
    script = tmp_path / "stage.py"
    script.write_text(
        f"from sleeping import work\nfrom specmaskfoley.processes.isolation import IsolatedPool, parallel_map\n{call}\n"
    )
    stage = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    workers = [int(stage.stdout.readline()) for _ in range(2)]
    stage.kill()
    stage.wait()
    for _ in range(100):
        if not any(_runs(pid) for pid in workers):
            break
        time.sleep(0.1)
    assert not [pid for pid in workers if _runs(pid)]


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_parallel_map_keeps_the_order(workers):
    assert parallel_map(math.sqrt, [4.0, 9.0, 16.0], workers=workers, title="roots") == [2, 3, 4]


def test_a_parallel_map_of_nothing():
    assert parallel_map(math.sqrt, [], workers=0, title="roots") == []


def test_errors_in_a_parallel_map_are_the_callers():
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        parallel_map(math.sqrt, [1.0, -1.0], workers=2, title="roots")


def test_a_killed_worker_of_a_parallel_map_names_the_setting():
    with pytest.raises(ValueError, match=r"dying: a worker process was killed.*run\.workers \(now 2\)"):
        parallel_map(os._exit, [1, 1], workers=2, title="dying")


def test_workers_that_are_only_starting_end_in_silence(capfd):
    for _ in range(8):
        with IsolatedPool(4, timeout_s=9.0, memory_gb=math.inf) as pool:
            assert list(pool.map(abs, [-1])) == [1]
    assert capfd.readouterr().err == ""
