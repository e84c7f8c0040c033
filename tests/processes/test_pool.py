import math
import os
import subprocess
import sys
import time

import pytest

from specmaskfoley.processes.pool import parallel_map


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order(workers):
    assert parallel_map(math.sqrt, [4.0, 9.0, 16.0], workers=workers, title="roots") == [2, 3, 4]


def test_no_items():
    assert parallel_map(math.sqrt, [], workers=0, title="roots") == []


def test_errors_of_workers_are_the_callers():
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        parallel_map(math.sqrt, [1.0, -1.0], workers=2, title="roots")


def test_a_killed_worker_names_the_setting():
    with pytest.raises(ValueError, match=r"run\.workers \(now 2\)"):
        parallel_map(os._exit, [1, 1], workers=2, title="dying")


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_workers_of_a_killed_stage_end(tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(
        "import os, time\n"
        "from specmaskfoley.processes.pool import parallel_map\n"
        "def work(i):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    parallel_map(work, [1, 2], workers=2, title='sleeping')\n"
    )
    stage = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    workers = [int(stage.stdout.readline()) for _ in range(2)]
    stage.kill()
    stage.wait()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in workers):
            break
        time.sleep(0.1)
    alive = [pid for pid in workers if os.path.exists(f"/proc/{pid}") and _state(pid) != "Z"]
    assert not alive


def _state(pid):
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rsplit(")", 1)[1].split()[0]
