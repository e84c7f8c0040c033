"""The console command `specmaskfoley`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from specmaskfoley.commands import weights as weights_command
from specmaskfoley.settings import Params

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Sound for silent video (SpecMaskFoley).")
app.add_typer(weights_command.app, name="weights")


@app.command()
def generate(
    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEO|DIR...", help="Videos, or folders of them.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.", show_default=False)],
    text: Annotated[
        str, typer.Option(metavar="TEXT", help="What is heard: 'hammering nail'.", show_default="the video alone")
    ] = "",
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed gives another take.", min=0)] = 0,
    candidates: Annotated[
        int, typer.Option(metavar="K", help="Draw takes of K seeds from N on, ranked by judges.", min=1, max=64)
    ] = 1,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Decoding steps.", min=1, max=1000, show_default="sample.steps"),
    ] = None,
    cfg_scale: Annotated[
        float | None, typer.Option(metavar="X", help="Scale of the guidance.", min=0, show_default="cfg.scale")
    ] = None,
    keep_original_audio: Annotated[
        Literal["mix", "replace"], typer.Option(help="The video's own sound, in the new video.")
    ] = "replace",
    format: Annotated[Literal["flac", "wav"], typer.Option(help="Of the sound file.")] = "flac",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A-B", help="Make these seconds anew, such as 3.2-5.0. May be repeated.", rich_help_panel="Editing"
        ),
    ] = None,
    from_audio: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Edit this sound, not the video's own. Without --only: fill silent holes, and go on where it ends.",
            rich_help_panel="Editing",
        ),
    ] = None,
    extend_band: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Add what a sound lacks above HZ.", min=1, rich_help_panel="Editing"),
    ] = None,
    max_duration: Annotated[
        float, typer.Option(metavar="S", help="Refuse videos longer than S seconds.", min=0)
    ] = 14400,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder that `specmaskfoley export` wrote.", show_default="that of this project"
        ),
    ] = None,
    params_file: Annotated[
        Path, typer.Option("--params", metavar="FILE", help="Settings of the project, without --model.")
    ] = Path("params.yaml"),
) -> None:
    """Make sound for videos of any length, or edit the sound they have.

    For every video the folder gets <name>.flac (the sound), <name>.mp4 (with the picture as it is; .mkv where its
    codec needs that) and <name>.json (how to make it again). The best of several candidates has the plain name, the
    others are <name>.2, <name>.3 and so on.

    Editing keeps every other sample to the bit; cross-fades of 20 ms lie inside the seconds that are made anew.

    Exit codes: 0 all made; 1 some videos failed, the others are made; 2 a mistake in the arguments.
    """
    try:
        # torch takes seconds to import: `--help` and mistakes in the arguments should not wait for it.
        from specmaskfoley.commands.generate import Wishes, find_videos, generate_all, parse_span

        wishes = Wishes(
            text=text, seed=seed, candidates=candidates, steps=steps, cfg_scale=cfg_scale,
            keep_original_audio=keep_original_audio, format=format, only=tuple(parse_span(span) for span in only or ()),
            from_audio=from_audio, extend_band=extend_band, max_duration_s=max_duration,
        )  # fmt: skip
        failed = generate_all(find_videos(videos), out, wishes, model or params_file)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if failed:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    params_file: Annotated[Path, typer.Option("--params", help="Settings that the model was trained with.")] = Path(
        "params.yaml"
    ),
) -> None:
    """Write the trained model as a folder of its own: weights, settings and a model card with data, metrics, licences.

    `specmaskfoley generate --model DIR` and `Foley.load("DIR")` read it; `hf upload USER/NAME DIR` puts it on a hub.
    """
    try:
        from specmaskfoley.foley.export import export_model  # imports torch, which takes seconds

        for file in export_model(params_file, folder):
            typer.echo(f"{folder / file}")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def web(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Default: the first free one from 7860 on.", min=1, max=65535, show_default=False)
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also through a public link of gradio.live, for anyone who has it.")
    ] = False,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="SPECMASKFOLEY_PASSWORD", help="Let in only who knows it (under any name).", show_default=False
        ),
    ] = None,
    max_minutes: Annotated[float, typer.Option(help="Refuse longer videos.", min=0.01)] = 3.0,
    max_mb: Annotated[float, typer.Option(help="Refuse larger files.", min=0.01)] = 200.0,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A model that `specmaskfoley export` wrote.", show_default=False),
    ] = None,
    params_file: Annotated[Path, typer.Option("--params", help="Settings of the project, without --model.")] = Path(
        "params.yaml"
    ),
) -> None:
    """Serve a page to make sound for videos in the browser: choose among takes, change parts, download.

    Only this machine is asked and can ask, unless told otherwise. Needs gradio (the extra `web`).
    """
    try:
        from specmaskfoley.commands.web import serve  # imports torch, which takes seconds
        from specmaskfoley.web.studio import Limits

        limits = Limits(minutes=max_minutes, megabytes=max_mb)
        serve(model or params_file, host=host, port=port, share=share, password=password, limits=limits)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


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
        from specmaskfoley.commands.plan import plan as lines  # imports torch, which takes seconds

        typer.echo("\n".join(lines(params)))
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def evaluate(
    generated: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]DIR",
            help="Folder of sounds (wav, flac, mp4, ...) of a system; may be repeated. A NAME again: another take.",
            show_default=False,
        ),
    ],
    reference: Annotated[Path, typer.Option(help="Folder of the true sounds, or of videos.", show_default=False)],
    videos: Annotated[
        Path | None, typer.Option(help="Folder of videos. Default: the reference, if these are videos.")
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(help="Seconds that are scored. Default: audio.duration_s.", min=0)
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Whose judges. Default: the active profile's.")] = None,
    pattern: Annotated[str, typer.Option(help="Which generated files, such as '*.flac'.")] = "*",
    min_coverage: Annotated[
        float | None, typer.Option(help="Default: evaluate.min_coverage.", min=0, max=1, show_default=False)
    ] = None,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Each metric on the files it happens to get, as av-benchmark.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the results; metrics/systems/NAME.json gets into the report.")
    ] = None,
    params_file: Annotated[Path, typer.Option("--params", help="Settings of the judges.")] = Path("params.yaml"),
) -> None:
    """Score the sounds of any system: FD, FAD, KL, IB score, DeSync, inception score.

    Files belong together by name (`clip.flac` is the sound of `clip.mp4`). All systems are scored on the clips of which
    each has a usable sound; the others are named. Exit code 2 for a mistake or too few clips.
    """
    try:
        from specmaskfoley.commands import evaluate as command  # imports torch, which takes seconds

        lines = command.evaluate(
            params_file, generated, reference, videos=videos, pattern=pattern, duration_s=duration_s, profile=profile,
            min_coverage=min_coverage, as_published=as_published, out=out,
        )  # fmt: skip
        typer.echo("\n".join(lines))
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def bench(
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Default: the first test clips.", show_default=False)
    ] = None,
    runs: Annotated[int, typer.Option(help="Timed runs, after one that warms up.", min=1)] = 20,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="New networks of the profile's sizes; sampler and vocoder alone.")
    ] = False,
    profile: Annotated[str | None, typer.Option(help="Another profile than the active one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the numbers, such as to metrics/bench.json.")] = None,
    params_file: Annotated[Path, typer.Option("--params", help="Settings to time.")] = Path("params.yaml"),
) -> None:
    """Time the way from a video file to one with sound on this machine, part by part: median and 95th percentile."""
    try:
        params = Params.load(params_file, profile)
        files = [video.resolve() for video in videos or []]
        target = None if out is None else out.resolve()
        os.chdir(params_file.resolve().parent)
        from specmaskfoley.commands import bench as timing  # imports torch, which takes seconds
        from specmaskfoley.device import start

        lines = timing.bench(params, start(params), files, runs=runs, trained=not untrained, out=target)
        typer.echo("\n".join(lines))
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder for report.html, table.md and the figures.")] = Path("comparison"),
    experiments: Annotated[
        Literal["all", "none"], typer.Option(help="Other DVC experiments of this repository.")
    ] = "all",
    params_file: Annotated[Path, typer.Option("--params", help="Settings of this experiment.")] = Path("params.yaml"),
) -> None:
    """Compare this experiment with others, with other systems (metrics/systems/*.json) and with published results.

    The page opens from disk, without a network.
    """
    try:
        from specmaskfoley.commands import report as command  # imports matplotlib, which takes seconds

        typer.echo(f"report: {command.report(params_file, out, experiments=experiments == 'all')}")
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
        from specmaskfoley.clips.ledger import to_csv, write_csv

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
    from specmaskfoley.clips.ledger import chosen, compare, listing, read_ledger, summary
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


if __name__ == "__main__":
    app()
