"""The rules of the tests themselves: what takes long is marked, and no test file leans on another."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.time_limit import HEAVY

pytest_plugins = ["pytester"]
SLOW = """
import time
import pytest
{mark}
def test_long():
    {work}
"""
BURN = "begin = time.process_time()\n    while time.process_time() < begin + 0.3: pass"
SLEEP = "time.sleep(0.3)"


def run(pytester: pytest.Pytester, work: str, *, mark: str = "", load: float = 0.0) -> pytest.RunResult:
    """A test that works or sleeps for 0.3 s, where 0.1 s is too long; `load` is what the machine says of itself."""
    pytester.makepyfile(SLOW.format(mark=mark, work=work))
    pytester.makeini("[pytest]\nmarkers =\n" + "".join(f"  {name}\n" for name in HEAVY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.time_limit.LIMIT_S", 0.1)
        patch.setattr("os.cpu_count", lambda: 2)
        patch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
        return pytester.runpytest_inprocess("-p", "helpers.time_limit", "-p", "no:cacheprovider")


@pytest.mark.parametrize("work", [BURN, SLEEP])
def test_a_long_test_without_a_mark_fails(pytester: pytest.Pytester, work: str) -> None:
    result = run(pytester, work)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*more than the * of a test in the quick suite*browser, ray, kill*"])


@pytest.mark.parametrize("name", HEAVY)
def test_a_mark_allows_it(pytester: pytest.Pytester, name: str) -> None:
    run(pytester, SLEEP, mark=f"@pytest.mark.{name}").assert_outcomes(passed=1)


def test_waiting_on_a_busy_machine_is_no_fault(pytester: pytest.Pytester) -> None:
    run(pytester, SLEEP, load=20.0).assert_outcomes(passed=1)


def test_work_on_a_busy_machine_still_counts(pytester: pytest.Pytester) -> None:
    run(pytester, BURN, load=20.0).assert_outcomes(failed=1)


def test_what_fails_fails_as_before(pytester: pytest.Pytester) -> None:
    result = run(pytester, "assert not 'the reason'")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the reason*"])


def test_the_marks_are_those_that_the_quick_suite_leaves_out(pytestconfig: pytest.Config) -> None:
    left_out = " or ".join(HEAVY)
    assert f"not ({left_out})" in pytestconfig.getini("addopts")
    declared = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert set(HEAVY) <= declared


def test_no_file_imports_from_a_test_file() -> None:
    """What two of them need lies in tests/helpers. Programs that a test writes down as text count too."""
    wrong = []
    for path in Path(ROOT, "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = set(re.findall(r"^\s*(?:from|import) (test_\w+)", text, re.MULTILINE))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                imported.add("." * node.level + (node.module or ""))
        names = [
            name for name in imported if name.startswith((".", "tests")) or name.split(".")[-1].startswith("test_")
        ]
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert wrong == []
