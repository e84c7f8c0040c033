"""The console command `specmaskfoley report`: this experiment beside others, other systems and published results."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from specmaskfoley.report.cached import cache_folder
from specmaskfoley.report.experiments import other_experiments, workspace
from specmaskfoley.report.report import Company, write_all
from specmaskfoley.report.results import read_folder
from specmaskfoley.settings import Params


def report(params_file: Path, out: Path, *, experiments: bool = True) -> Path:
    """Write report.html, table.md and the figures into `out`; a warning goes to stderr.

    Returns:
        the page.

    Raises:
        ValueError, OSError: naming the setting or file and what to do.
    """
    params, params_file, out = Params.load(params_file), params_file.absolute(), out.resolve()
    os.chdir(params_file.parent)  # paths in params.yaml count from its own directory
    this = workspace(params_file)
    others, without = other_experiments(params_file.parent, this) if experiments else ([], {})
    folders = sorted(path for path in (Path(params.paths.metrics) / "others").glob("*/") if path.is_dir())
    systems = {folder.name: read_folder(folder) for folder in folders}
    if this.warning:
        typer.echo(f"warning: {this.warning}", err=True)
    cache = cache_folder(params_file.parent)
    company = Company(this=this, experiments=others, systems=systems, without=without, cache=cache)
    return write_all(params, out, this.evaluation, company)
