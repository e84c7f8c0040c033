"""The console command `specmaskfoley`: its commands and their options.

What a command needs is imported when it runs: torch takes seconds, and `--help` and mistakes in the arguments should
not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from specmaskfoley.commands.console import Command, commands

app = commands(help="Sound for silent video (SpecMaskFoley).")

ParamsFile = Annotated[Path, typer.Option("--params", metavar="FILE", help="Settings of the project.")]
Profile = Annotated[
    str | None, typer.Option(metavar="NAME", help="Another profile than the active one.", show_default=False)
]
Model = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A folder that `specmaskfoley export` wrote.", show_default="that of the project"),
]
_PARAMS = Path("params.yaml")

# Options of `generate`
Videos = Annotated[
    list[Path] | None, typer.Argument(metavar="VIDEO|DIR", help="Videos, or folders of them.", show_default=False)
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.", show_default=False)]
Text = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT", show_default="the video alone",
        help="What is heard: 'hammering nail'. Of a part: '0-3: footsteps', which may be repeated.",
    ),
]  # fmt: skip
Table = Annotated[
    Path | None,
    typer.Option(
        "--prompts", metavar="FILE", show_default=False,
        help="A table (CSV) with a row for each sound: video, text, negative, like, seed, duration. Its cells take the "
        "place of the options.",
    ),
]  # fmt: skip
Negative = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="What is not to be heard: 'speech, music'. Takes longer: one more pass in every step.",
        show_default=False,
    ),
]  # fmt: skip
NegativeScale = Annotated[
    float | None, typer.Option(metavar="X", help="Weight of --negative, times --cfg-scale.", min=0, show_default="1")
]
Like = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A sound to be like, in place of --text.", show_default=False),
]
Duration = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Make a sound of this length without a video.", min=0, show_default=False),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Another seed gives another take.", min=0)]
Candidates = Annotated[
    int, typer.Option(metavar="N", help="Draw N takes, with seeds from --seed on; judges rank them.", min=1, max=64)
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Decoding steps; of several codebooks those of the first, the others take half.",
        min=1,
        max=1000,
        show_default="sample.steps",
    ),
]
Scale = Annotated[
    float | None, typer.Option(metavar="X", help="Scale of the guidance.", min=0, show_default="cfg.scale")
]
KeepAudio = Annotated[
    Literal["mix", "replace"], typer.Option(help="What becomes of the video's own sound, in the new video.")
]
Format = Annotated[Literal["flac", "wav"], typer.Option(help="Format of the sound file.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace whatever has the name of a result, besides what is read.")
]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Make nothing that is there: the same video, model and settings.")
]
MaxDuration = Annotated[float, typer.Option(metavar="SECONDS", help="Refuse longer videos.", min=0)]
Picture = Annotated[
    Literal["copy", "encode"],
    typer.Option(help="Copy the picture bit by bit, or encode it as H.264, which goes into every .mp4."),
]
AudioTrack = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, show_default="the one that players play",
        help="Which sound of the video is mixed or edited, counted from 1.",
    ),
]  # fmt: skip
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A-B", help="Make these seconds anew, such as 3.2-5.0. May be repeated.", rich_help_panel="Editing"
    ),
]
FromAudio = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Edit this sound, not the video's own. Without --only: fill silent holes, and go on where it ends.",
        rich_help_panel="Editing",
    ),
]
ExtendBand = Annotated[
    float | None,
    typer.Option(metavar="HZ", help="Add what a sound lacks above HZ.", min=1, rich_help_panel="Editing"),
]
RecordFile = Annotated[
    Path | None,
    typer.Option(
        "--record",
        metavar="FILE",
        help="Make the sound of this file again, to the bit, whatever the settings are now.",
        show_default=False,
    ),
]


@app.command(cls=Command)
def generate(
    out: Out,
    videos: Videos = None,
    text: Text = None,
    prompts: Table = None,
    negative: Negative = "",
    like: Like = None,
    duration: Duration = None,
    seed: Seed = 0,
    candidates: Candidates = 1,
    steps: Steps = None,
    cfg_scale: Scale = None,
    negative_scale: NegativeScale = None,
    keep_original_audio: KeepAudio = "replace",
    format: Format = "flac",
    picture: Picture = "copy",
    audio_track: AudioTrack = None,
    only: Only = None,
    from_audio: FromAudio = None,
    extend_band: ExtendBand = None,
    record: RecordFile = None,
    max_duration: MaxDuration = 14400,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    model: Model = None,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Make sound for videos of any length, or edit the sound they have; or make sound from words alone (--duration).

    For every video the folder gets <name>.flac (the sound), <name>.mp4 (with the picture as it is; .mov or .mkv where
    its codec needs that, nothing where none takes it: see --picture) and <name>.json (how to make it again: see
    --record). The best of several candidates has the plain name, the others are <name>.2, <name>.3 and so on.

    Results of folders lie in the same subfolders. They replace those of an earlier run for the same video, and nothing
    else: what is in the way is named before anything is made.

    Where no --text says what is heard, clip.txt beside clip.mp4 does: its first line, or parts, one a line.

    Editing keeps every other sample to the bit; cross-fades of 20 ms lie inside the seconds that are made anew.

    Exit codes: 0 all made; 1 some videos or rows failed, the others are made; 2 a mistake in the arguments.
    """
    from specmaskfoley.commands.generate import Options, generate_all, parse_span
    from specmaskfoley.commands.project import model_source
    from specmaskfoley.foley.prompts import parse_texts

    given = {"seed": seed or None, "steps": steps, "scale": cfg_scale, "negative_scale": negative_scale}
    options = Options(
        text=parse_texts(text) if text else "", negative=negative, like=like, texts_beside=not text,
        duration_s=duration, candidates=candidates,
        sampling={name: value for name, value in given.items() if value is not None},
        keep_original_audio=keep_original_audio, format=format, only=tuple(parse_span(span) for span in only or ()),
        from_audio=from_audio, extend_band=extend_band, record=record, max_duration_s=max_duration,
        picture=picture, audio_track=audio_track, overwrite=overwrite, skip_existing=skip_existing,
    )  # fmt: skip
    if generate_all(videos or [], out, options, model_source(model, params_file), prompts):
        raise typer.Exit(1)


@app.command(cls=Command)
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Write the trained model as a folder of its own: weights, settings and a model card with data, metrics, licences.

    `specmaskfoley generate --model DIR` and `Foley.load("DIR")` read it; `hf upload USER/NAME DIR` puts it on a hub.
    """
    from specmaskfoley.foley.export import export_model

    for file in export_model(params_file, folder):
        typer.echo(f"{folder / file}")


# Options of `web` and `serve`
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0: all of this machine's.")]
Port = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Port to listen on.", min=1, max=65535, show_default="the first free one from 7860 on"
    ),
]
Password = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="SPECMASKFOLEY_PASSWORD",
        help="Users must give it (any user name will do).",
        show_default=False,
    ),
]
MaxMinutes = Annotated[float, typer.Option(metavar="MINUTES", help="Refuse longer videos.", min=0.01)]
MaxMb = Annotated[float, typer.Option(metavar="MB", help="Refuse larger files.", min=0.01)]


@app.command(cls=Command)
def web(
    host: Host = "127.0.0.1",
    port: Port = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also through a public link of gradio.live, for anyone who has it.")
    ] = False,
    password: Password = None,
    max_minutes: MaxMinutes = 3.0,
    max_mb: MaxMb = 200.0,
    model: Model = None,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Serve a page to make sound for videos in the browser: choose among takes, change parts, download.

    By default only browsers on this machine can open it. Needs gradio (the extra `web`).
    """
    from specmaskfoley.commands.project import model_source

    source = model_source(model, params_file)
    from specmaskfoley.commands.web import serve
    from specmaskfoley.web.studio import Limits

    limits = Limits(minutes=max_minutes, megabytes=max_mb)
    serve(source, host=host, port=port, share=share, password=password, limits=limits)


@app.command(cls=Command)
def serve(
    host: Host = "127.0.0.1",
    port: Port = None,
    password: Password = None,
    max_minutes: MaxMinutes = 3.0,
    max_mb: MaxMb = 200.0,
    model: Model = None,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Serve an HTTP interface for other programs: post a video, follow the job, fetch sound, video and record.

    By default only programs on this machine reach it. Its reference is at /docs. Needs fastapi (the extra `web`).
    """
    from specmaskfoley.commands.project import model_source

    source = model_source(model, params_file)
    from specmaskfoley.commands import serve as command
    from specmaskfoley.web.studio import Limits

    limits = Limits(minutes=max_minutes, megabytes=max_mb)
    command.serve(source, host=host, port=port, password=password, limits=limits)


@app.command(cls=Command)
def plan(profile: Profile = None, params_file: ParamsFile = _PARAMS) -> None:
    """Print what `dvc repro` will download, compute and store with these settings, and under which licences."""
    from specmaskfoley.commands.plan import plan as lines
    from specmaskfoley.commands.project import enter

    typer.echo("\n".join(lines(enter(params_file, profile))))


@app.command(cls=Command)
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="STAGE", help="Stages to bring up to date.", show_default="all")
    ] = None,
    lanes: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Stages at a time.", min=1, show_default="one a core, at most 3; 1 where there is a GPU"
        ),
    ] = None,
) -> None:
    """Do what `dvc repro` does, several stages at a time, with the same results.

    A stage starts as soon as all that it needs is up to date. If one fails, those beside it run to their end and no
    other starts (exit code 1). SIGINT, SIGTERM and SIGHUP reach all of them, and a second one kills them.
    """
    from specmaskfoley.commands.repro import repro as command
    from specmaskfoley.errors import one_line_errors

    with one_line_errors(1):
        command(targets or [], lanes)


@app.command(cls=Command)
def evaluate(
    generated: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]DIR",
            help="Folder of sounds (wav, flac, mp4, ...) of a system; may be repeated. A NAME again: another take.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the true sounds, or of videos.", show_default=False)
    ],
    videos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of videos.", show_default="the reference, if these are videos"),
    ] = None,
    duration_s: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How much is scored.", min=0, show_default="audio.duration_s"),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose judges.", show_default="the active profile's")
    ] = None,
    pattern: Annotated[str, typer.Option(metavar="GLOB", help="Which generated files, such as '*.flac'.")] = "*",
    min_coverage: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            show_default="evaluate.min_coverage",
            help="Share of the clips of which a system must have sounds.",
        ),
    ] = None,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Each metric on the files it happens to get, as av-benchmark.")
    ] = False,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Further scores: clap (how well the sound fits the words of --labels), aesthetics (PQ, PC, CE, CU). "
            "May be repeated.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV or TSV with a header: a column clip_id, id, name or key, and words in caption or label.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Scores by this column of --labels, too.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the results; metrics/others/NAME gets into the report.")
    ] = None,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Score the sounds of any system: FD, FAD, KL, IB score, DeSync, inception score.

    Files belong together by name (`clip.flac` is the sound of `clip.mp4`). All systems are scored on the clips of which
    each has a usable sound; the others are named. Exit code 2 for a mistake or too few clips.
    """
    from specmaskfoley.commands import evaluate as command

    lines = command.evaluate(
        params_file, generated, reference, videos=videos, pattern=pattern, duration_s=duration_s, profile=profile,
        min_coverage=min_coverage, as_published=as_published, extra=extra or (), labels=labels, by=by, out=out,
    )  # fmt: skip
    typer.echo("\n".join(lines))


@app.command(cls=Command)
def bench(
    videos: Annotated[
        list[Path] | None, typer.Argument(metavar="VIDEO", help="Videos.", show_default="the first test clips")
    ] = None,
    runs: Annotated[int, typer.Option(metavar="N", help="Timed runs, after one to warm up.", min=1)] = 20,
    mode: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Form of guidance, as cfg.mode.", show_default="cfg.mode"),
    ] = None,
    steps: Steps = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Clips at a time.", min=1)] = 1,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="New networks of the profile's sizes; sampler and vocoder alone.")
    ] = False,
    profile: Profile = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers, such as to metrics/bench.json.")
    ] = None,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Time the way from a video file to one with sound on this machine, part by part: median and 95th percentile."""
    from specmaskfoley.commands import bench as timing
    from specmaskfoley.commands.project import enter
    from specmaskfoley.device import start

    files = [video.resolve() for video in videos or []]
    target = None if out is None else out.resolve()
    params = enter(params_file, profile)
    given = {"mode": mode or params.cfg.mode, "steps": steps or params.sample.steps}
    lines = timing.bench(
        params, start(params), files, runs=runs, batch=batch, sampling=params.sampling.changed(**given),
        trained=not untrained, out=target,
    )  # fmt: skip
    typer.echo("\n".join(lines))


@app.command(cls=Command)
def report(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for report.html, table.md and the figures.")] = Path(
        "comparison"
    ),
    experiments: Annotated[
        Literal["all", "none"], typer.Option(help="Other DVC experiments of this repository.")
    ] = "all",
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Compare this experiment with others, with other systems (metrics/others/*/) and with published results.

    The page opens from disk, without a network.
    """
    from specmaskfoley.commands import report as command  # imports matplotlib, which takes seconds

    typer.echo(f"report: {command.report(params_file, out, experiments=experiments == 'all')}")


@app.command(cls=Command)
def ledger(
    path: Annotated[Path | None, typer.Argument(metavar="FILE", help="A ledger.", show_default="paths.ledger")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another ledger to compare with.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, val or test only.", show_default=False)
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="List the clips in this state; may be repeated.", show_default=False),
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows in question; - for stdout.", show_default=False)
    ] = None,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Say what became of every clip, and how two data sets differ.

    The hash of the ready clips of a split is the same wherever the same clips are ready. With --compare the exit
    code is 0 if the ready clips are the same, 1 if not, 2 for a mistake.
    """
    from specmaskfoley.commands.ledger import ledger as command

    lines, equal = command(path, compare, split, state or [], csv, params_file)
    if lines:
        typer.echo("\n".join(lines), color=True)  # or it would take colour codes out of the rows of --csv -
    if not equal:
        raise typer.Exit(1)


weights = commands(help="Official weight files, which weights.lock.yaml lists.")
app.add_typer(weights, name="weights")

WeightNames = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Names in weights.lock.yaml.", show_default=False)
]
WeightsOf = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="All that this profile needs.", show_default=False)
]


@weights.command("list", cls=Command)
def list_weights(params_file: ParamsFile = _PARAMS) -> None:
    """All files: what for, how large, under which licence, and whether they are here (hashes nothing)."""
    from specmaskfoley.commands.weights import table

    typer.echo("\n".join(table(params_file)))


@weights.command("fetch", cls=Command)
def fetch_weights(names: WeightNames = None, profile: WeightsOf = None, params_file: ParamsFile = _PARAMS) -> None:
    """Download files, or take them from weights.bundle, and check them.

    By default all that the active profile needs. A transfer that broke off goes on where it stopped.
    """
    from specmaskfoley.commands.weights import fetch_wanted

    typer.echo("\n".join(fetch_wanted(names or [], profile, params_file)))


@weights.command("verify", cls=Command)
def verify_weights(
    names: WeightNames = None,
    profile: WeightsOf = None,
    full: Annotated[bool, typer.Option("--full", help="Hash again what was hashed before.")] = False,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Check files against weights.lock.yaml: those that are here and those that the active profile needs, or others."""
    from specmaskfoley.commands.weights import verify

    if not verify(names or [], profile, params_file, full=full):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
