"""The console command `specmaskfoley`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specmaskfoley.config import Params
from specmaskfoley.weights import command as weights_command

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Sound for silent video (SpecMaskFoley).")
app.add_typer(weights_command.app, name="weights")


@app.command()
def generate(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    text: Annotated[str, typer.Option(help="What is heard, e.g. 'hammering nail'. Empty: the video alone.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed gives another take.", min=0)] = 0,
    params_file: Annotated[Path, typer.Option("--params", help="Settings that the model was trained with.")] = Path(
        "params.yaml"
    ),
) -> None:
    """Make sound for videos with the model that `dvc repro` trained.

    Writes <name>.flac and <name>.mp4 (the picture copied, the sound new) into OUT. Exit code 1 if any video
    failed; the others are still made.
    """
    try:
        params = Params.load(params_file)
        # Paths in params.yaml count from its own directory.
        out, files = out.resolve(), [video.resolve() for video in videos]
        os.chdir(params_file.resolve().parent)
        failed = _generate(params, files, out, text, seed)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if failed:
        raise typer.Exit(1)


@app.command()
def plan(
    profile: Annotated[
        str | None, typer.Option(help="Another profile than the active one.", show_default=False)
    ] = None,
    params_file: Annotated[Path, typer.Option("--params", help="Settings to plan for.")] = Path("params.yaml"),
) -> None:
    """Print what `dvc repro` will download, compute and store with these settings, and under which licences."""
    try:
        params = Params.load(params_file, profile)
        os.chdir(params_file.resolve().parent)
        from specmaskfoley.plan import plan as lines  # imports torch, which takes seconds

        typer.echo("\n".join(lines(params)))
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def ledger(
    path: Annotated[
        Path | None, typer.Argument(metavar="LEDGER", help="Default: paths.ledger.", show_default=False)
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Another ledger to compare with.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test only.", show_default=False)] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="List the clips in this state; may be repeated.", show_default=False)
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows in question; - for stdout.", show_default=False)
    ] = None,
    params_file: Annotated[Path, typer.Option("--params", help="Settings that name the ledger.")] = Path("params.yaml"),
) -> None:
    """Say what became of every clip, and how two data sets differ.

    The hash of the ready clips of a split is the same wherever the same clips are ready. With --compare the exit
    code is 0 if the ready clips are the same, 1 if not, 2 for a mistake.
    """
    try:
        lines, table, equal = _ledger(path, compare, split, state or [], params_file)
        from specmaskfoley.ledger import to_csv, write_csv

        if csv == "-":
            lines = [to_csv(table).decode().removesuffix("\n")]
        elif csv is not None:
            write_csv(table, csv)
            lines = [*([] if state else [*lines, ""]), f"{len(table)} rows written to {csv}"]
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if lines:
        typer.echo("\n".join(lines), color=True)  # or it would take colour codes out of the rows of --csv -
    if not equal:
        raise typer.Exit(1)


def _ledger(
    path: Path | None, other: Path | None, split: str | None, states: list[str], params_file: Path
) -> tuple[list[str], pa.Table, bool]:
    """Lines for the terminal, the rows in question, and whether the compared ready clips are the same."""
    # pandas and pyarrow take a second to import.
    from specmaskfoley.ledger import chosen, compare, listing, read_ledger, summary
    from specmaskfoley.storage.tables import SPLITS, STATES

    if split is not None and split not in SPLITS:
        raise ValueError(f"--split {split} is not one of {', '.join(SPLITS)}")
    if unknown := [state for state in states if state not in STATES]:
        raise ValueError(f"--state {unknown[0]} is not one of {', '.join(STATES)}")
    if states and other is not None:
        raise ValueError("--state lists the clips of one ledger; leave it out with --compare")
    params = Params.load(params_file)
    first = path or params_file.parent / params.paths.ledger
    table = read_ledger(first)
    if other is not None:
        result = compare(table, read_ledger(other), (str(first), str(other)), split)
        return result.lines, result.table, result.equal
    table = chosen(table, split=split, states=states)
    return listing(table) if states else summary(table, params.audio.duration_s), table, True


def _generate(params: Params, files: list[Path], out: Path, text: str, seed: int) -> int:
    """Returns how many videos failed."""
    # torch takes seconds to import: `--help` and mistakes in the arguments should not wait for it.
    from specmaskfoley.foley import Foley, find_videos
    from specmaskfoley.runtime import start

    found = find_videos(files)
    foley = Foley(params, start(params))
    failed = 0
    for path, target in zip(found, _targets(found, out), strict=True):
        try:
            made = foley.generate(path, target, text=text, seed=seed)
        except (ValueError, OSError) as error:
            failed += 1
            typer.echo(f"error: {path.name}: {error}", err=True)
        else:
            typer.echo(f"{path.name}: {made.duration_s:.2f} s -> {made.video}")
    return failed


def _targets(found: list[Path], out: Path) -> list[Path]:
    """Output names without ending: the video's stem, numbered where two videos share it."""
    targets: list[Path] = []
    for path in found:
        name, number = path.stem, 2
        while out / name in targets:
            name, number = f"{path.stem}-{number}", number + 1
        targets.append(out / name)
    return targets


if __name__ == "__main__":
    app()
