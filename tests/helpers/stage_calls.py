"""Stages and commands called in this process, for what does not depend on their having one of their own."""

from __future__ import annotations

import importlib.util
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from helpers import ROOT
from specmaskfoley.commands.main import app
from specmaskfoley.device import stage_main


def load_stage(name: str) -> ModuleType:
    """The script stages/`name`.py as a module."""
    spec = importlib.util.spec_from_file_location(f"stage_{name}", ROOT / "stages" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call_stage(name: str, root: Path) -> tuple[int, str]:
    """What `python stages/name.py` does in the folder `root`: exit code and output."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.chdir(root)
        patch.setenv("DVC_ROOT", str(root))
        patch.setattr(sys, "argv", [f"stages/{name}.py"])
        try:
            stage_main(load_stage(name).main)()
        except SystemExit as end:  # as the interpreter takes it
            if isinstance(end.code, str):
                print(end.code)
            return (1, output.getvalue()) if isinstance(end.code, str) else (end.code or 0, output.getvalue())
    return 0, output.getvalue()


def call_command(root: Path, *arguments: object) -> tuple[int, str]:
    """What `specmaskfoley arguments...` does in the folder `root`: exit code and output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("DVC_ROOT", str(root))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output
