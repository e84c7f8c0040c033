"""What `--help` shows, in how little time, and what no command may import for nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import ROOT
from typer.testing import CliRunner

from specmaskfoley.commands.console import Command, Commands
from specmaskfoley.commands.main import app

GLOSSARY = {
    "ADDRESS", "A-B", "DIR", "FILE", "GLOB", "HZ", "MB", "MINUTES", "N", "NAME", "[NAME=]DIR", "SECONDS", "TEXT",
    "STAGE", "VIDEO", "VIDEO|DIR", "X",
}  # fmt: skip
"""What values are called: N is a whole number, X any, NAME one of a few words, TEXT anything."""


def found() -> Iterator[tuple[tuple[str, ...], Any]]:
    """All groups and commands by the words that call them."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while todo:
        words, one = todo.pop()
        yield words, one
        todo += [((*words, name), below) for name, below in getattr(one, "commands", {}).items()]


COMMANDS = {" ".join(words): one for words, one in found()}


def shown(words: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_and_names_no_types(words: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(words, columns, monkeypatch)
    types = re.findall(r"<(?:bool|int|float|str|path|file|list|integer)\b.*?>", text, re.IGNORECASE)
    assert types == []
    assert max(map(len, text.splitlines())) <= columns
    assert "..." not in re.sub(r"\S\.\.\.|\.\.\.\)", "", text), "a sentence is cut short"
    assert "Default:" not in text, "a default stands in brackets, as all others"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_says_what_it_is_for_and_what_its_value_is_called(words: str) -> None:
    command = COMMANDS[words]
    assert isinstance(command, Command | Commands)
    context = command.make_context(words, [], resilient_parsing=True)
    for param in command.params:
        assert param.help, param.name
        shown, _ = param.get_help_record(context)
        is_choice = re.search(r"[<\[]\w+(\|\w+)+[>\]]$", shown)
        is_flag = re.fullmatch(r"--[\w-]+", shown)
        assert is_choice or is_flag or param.metavar in GLOSSARY, shown


def test_all_commands_are_found() -> None:
    """Or the tests above say nothing."""
    assert {"", "generate", "evaluate", "weights", "weights verify"} <= set(COMMANDS)


def run(*arguments: object, cwd: Path = ROOT) -> tuple[set[str], float, str]:
    """Modules that a command has imported in a process of its own, its processor time, and what it printed."""
    program = (
        "import resource, sys\n"
        "from specmaskfoley.commands.main import app\n"
        "try:\n    app()\n"
        "finally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print('IMPORTED', used.ru_utime + used.ru_stime, *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=cwd, env=os.environ, capture_output=True, text=True
    )
    told, _, rest = done.stdout.partition("IMPORTED ")
    used, *modules = rest.split()
    return set(modules), float(used), told + done.stderr


SLOW = {"torch", "yaml", "numpy", "requests", "rich", "mlflow", "av", "pandas", "specmaskfoley.settings"}


@pytest.mark.parametrize("words", ["", *(f"{words} --help".strip() for words in COMMANDS)])
def test_help_waits_for_nothing(words: str) -> None:
    """0.1 to 0.35 s of processor time, by the machine and what else it does, nearly all of it typer's."""
    modules, used, told = run(*words.split())
    assert "Usage:" in told
    assert not SLOW & modules
    assert used < 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate absent.mp4 --out results", "absent.mp4: no such file"),
        ("generate . --out results --only 5-3", "--only 5-3: the end must come after"),
        ("ledger --split dev", "--split dev"),
        ("weights verify dog", "dog: not in weights.lock.yaml"),
        ("weights verify", "nothing to verify: profile mini needs no official weights"),
    ],
)
def test_small_answers_wait_for_no_torch(words: str, message: str, tmp_path: Path) -> None:
    for name in ("params.yaml", "weights.lock.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    modules, _, told = run(*words.split(), cwd=tmp_path)
    assert message in told
    assert not {"torch", "mlflow"} & modules


def test_generate_imports_only_what_one_take_needs(model: Path, video: Path, tmp_path: Path) -> None:
    modules, _, told = run("generate", video, "--out", tmp_path / "out", "--model", model)
    assert "out/clip.mp4" in told
    unwanted = {
        "mlflow", "matplotlib", "pandas", "gradio", "ray", "transformers", "accelerate", "requests", "sympy",
        "scipy", "torch._inductor", "torch._dynamo", "specmaskfoley.judges", "specmaskfoley.metrics",
        "specmaskfoley.report", "specmaskfoley.tracking",
    }  # fmt: skip
    assert sorted(unwanted & modules) == []


@pytest.mark.skipif(os.name == "nt", reason="terminals are made in another way there")
def test_on_a_terminal_generate_says_what_it_does_before_it_imports_torch(
    model: Path, video: Path, tmp_path: Path
) -> None:
    import termios

    program = (
        "import sys\n"
        "class Note:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print('TORCH', *sys.modules, 'END', file=sys.stderr, flush=True)\n"
        "sys.meta_path.insert(0, Note)\n"
        "from specmaskfoley.commands.main import app\n"
        "app()\n"
    )
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    arguments = ["generate", str(video), "--out", str(tmp_path / "out"), "--model", str(model)]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=follower
    ) as process:
        os.close(follower)
        told = b""
        while b" END" not in told:
            told += os.read(leader, 4096)
        process.kill()
    os.close(leader)
    shown, _, modules = told.decode().partition("TORCH")
    assert "looking at the videos" in shown
    assert not {"scipy", "pyarrow", "pandas", "matplotlib", "mlflow", "requests"} & set(modules.split())
