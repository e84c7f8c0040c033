"""The console command `specmaskfoley`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from specmaskfoley.config import Params
from specmaskfoley.weights import command as weights_command

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
