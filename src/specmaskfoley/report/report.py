"""What the report shows: this experiment, and beside it other systems, other experiments and published results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from specmaskfoley.metrics import COLUMNS
from specmaskfoley.metrics.frechet import FEW_CLIPS
from specmaskfoley.report import pictures
from specmaskfoley.report.cached import cached_files
from specmaskfoley.report.experiments import Experiment, sweep
from specmaskfoley.report.page import ReportClip, ReportContext, write_markdown, write_report
from specmaskfoley.report.pictures import Measured, Point
from specmaskfoley.report.published import (
    APART,
    PAPER_SAMPLING,
    Published,
    measured_like,
    published_apart,
    published_settings,
    published_systems,
)
from specmaskfoley.report.results import SCORES_SCHEMA, Evaluation, Interval, ScoredClips, Scores
from specmaskfoley.report.tables import (
    Entry,
    ScoreTable,
    category_table,
    class_table,
    published_table,
    score_table,
    system_entries,
)
from specmaskfoley.settings import Params
from specmaskfoley.storage.curves import read_curves
from specmaskfoley.storage.files import read_json
from specmaskfoley.storage.tables import read_table, ready_clips
from specmaskfoley.systems import MADE_ON, OURS, SYSTEMS, TRUE, generated, take_folder

JUDGES = {
    "mini": "The judges were trained by this pipeline on the training split, apart from the generator's encoders.",
    "paper": "The judges are official networks: PaSST (FD, KL), VGGish (FAD), ImageBind (IB), Synchformer (DeSync).",
}
SHOWN_SETTINGS = (
    "profile", "seed", "cfg.scale", "cfg.mode", "cfg.start", "cfg.ramp", "sample.steps", "sample.gumbel_temperature",
    "sample.temperature", "sample.top_p", "evaluate.seeds", "data.source",
)  # fmt: skip
SWEPT = "sample.steps"
_NOT_AT_HAND = "?: not in the text at hand."
_APART = (
    f"All of these were measured anew by {APART}: the FD of MMAudio is 116.92 here and 60.60 in its own paper, so "
    "compare them with each other only. Their KL is left out, since the source does not name its network."
)


@dataclass(frozen=True, kw_only=True)
class Company:
    """What this experiment is shown beside.

    Attributes:
        this: the experiment itself with its settings; None where it is shown alone.
        systems: evaluations of other systems, by the name of their folder.
        without: experiments that have no scores, and why.
        cache: of DVC, with the sounds of the experiments.
    """

    this: Experiment | None = None
    experiments: Sequence[Experiment] = ()
    systems: Mapping[str, Evaluation] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None


def write_all(params: Params, out: Path, evaluation: Evaluation, company: Company | None = None) -> Path:
    """Draw the figures and training curves, then write `out`/report.html and `out`/table.md.

    Returns:
        the page.
    """
    company = company or Company()
    this = company.this or _alone(params, evaluation)
    elsewhere, silent = _sounds_elsewhere(this, company)
    context = ReportContext(
        title=SYSTEMS[OURS].label,
        settings=_settings(params, this),
        tables=_tables(params, evaluation, company),
        figures=_figures(out / "figures", evaluation, company),
        curves=_curves(Path(params.paths.metrics) / "curves", out / "curve_pictures"),
        clips=_clips(params, elsewhere),
        warning=this.warning,
        notes=[*filter(None, [JUDGES.get(evaluation.clips.judges), _missing(silent)])],
        left_out=_left_out(evaluation, company),
    )
    write_markdown(out / "table.md", context)
    write_report(out / "report.html", context)
    return out / "report.html"


# ---------------------------------------------------------------------- this experiment


def _settings(params: Params, this: Experiment) -> dict[str, object]:
    # Those of another kind of backbone have no value.
    settings = {name: value for name in SHOWN_SETTINGS if (value := this.settings.get(name)) is not None}
    made_on = Path(params.paths.samples) / MADE_ON
    settings |= read_json(made_on) if made_on.exists() else {}  # sounds are not in git
    return settings | ({"commit": this.baseline[:7]} if this.baseline else {})


def _sounds_elsewhere(this: Experiment, company: Company) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """SpecMaskFoley's sounds in other experiments; equal ones come once.

    Returns:
        what tells an experiment from this one -> path in the folder of samples -> file; and the names of experiments
        of which the cache has no sounds.
    """
    found: dict[str, dict[str, Path]] = {}
    silent, known = [], {this.samples}
    for one in sorted(company.experiments, key=lambda one: _order(one.differences(this))):
        if company.cache is None or one.samples in known:
            continue
        known.add(one.samples)
        if files := cached_files(company.cache, one.samples):
            title = _named(one.differences(this)) or "the same settings"
            found[f"{title} ({one.name} {one.revision[:7]})"] = files
        else:
            silent.append(f"{one.name} {one.revision[:7]}")
    return found, silent


def _missing(silent: Sequence[str]) -> str:
    if not silent:
        return ""
    return f"DVC's cache has no sounds of {', '.join(silent)}; dvc exp pull fetches them where a remote has them."


def _curves(curves: Path, out: Path) -> list[tuple[str, Path]]:
    found = []
    for csv in sorted(curves.glob("*.csv")):
        if points := read_curves(csv):  # official networks have none
            picture = out / f"{csv.stem}.png"
            pictures.training_curves(picture, points, csv.stem)
            found.append((f"Training curves: {csv.stem}", picture))
    return found


def _clips(params: Params, elsewhere: Mapping[str, Mapping[str, Path]]) -> list[ReportClip]:
    """The test clips that have a picture, with the sounds of other experiments."""
    metrics, samples = Path(params.paths.metrics), Path(params.paths.samples)
    drawn = {path.stem: path for path in (metrics / "pictures").glob("*.png")}
    folders = {TRUE: samples / TRUE} | {name: take_folder(params, name, 0) for name in generated(params)}
    shown = []
    for row in ready_clips(params.paths.usable, "test") if drawn else []:
        if row.clip_id not in drawn:
            continue
        sounds = {SYSTEMS[name].label: folder / f"{row.clip_id}.flac" for name, folder in folders.items()}
        video = samples / "videos" / f"{row.clip_id}.mp4"
        sound = (folders[OURS] / f"{row.clip_id}.flac").relative_to(samples).as_posix()
        clip = ReportClip(
            clip_id=row.clip_id,
            label=row.label,
            picture=drawn[row.clip_id],
            # Only the first clips have their true sound and a video kept.
            sounds={name: path for name, path in sounds.items() if path.exists()},
            elsewhere={who: files[sound] for who, files in elsewhere.items() if sound in files},
            video=video if video.exists() else None,
        )
        shown.append(clip)
    return shown


def _left_out(evaluation: Evaluation, company: Company) -> dict[str, Mapping[str, str]]:
    lists: dict[str, Mapping[str, str]] = {}
    mine = [("", evaluation.clips)]
    for name, clips in [*mine, *((f": {name}", file.clips) for name, file in company.systems.items())]:
        lists |= {f"Clips not scored{name}": clips.excluded, f"Clips scored although odd{name}": clips.noted}
    lists["Experiments without scores"] = company.without
    return {heading: names for heading, names in lists.items() if names}


# ---------------------------------------------------------------------- tables


def _tables(params: Params, evaluation: Evaluation, company: Company) -> list[ScoreTable]:
    entries = system_entries(evaluation.scores, evaluation.intervals)
    apart = []
    for name, file in company.systems.items():
        if why := _incomparable(evaluation, file):
            apart.append(_table_apart(name, file, why))
        else:
            entries += _other_entries(name, file, {entry.title for entry in entries})
    tables = [score_table("Scores", entries, evaluation.clips)]
    for name, part in evaluation.clips.subsets.items():
        facts = {"takes": evaluation.clips.takes, "duration_s": evaluation.clips.duration_s}
        clips = ScoredClips(clips=part.clips, hash=part.hash, ranked=part.clips >= FEW_CLIPS, **facts)
        tables.append(score_table(f"Subset {name}", system_entries(part.scores), clips, legend=False))
    tables += apart
    if company.this is not None and company.experiments:
        tables.append(_experiments_table(company.this, company.experiments))
    tables.append(published_table("Published on VGGSound", published_systems(), note=_NOT_AT_HAND))
    tables.append(published_table(f"Published on VGGSound by {APART}", published_apart(), note=_APART))
    tables.append(_settings_table(params, evaluation, company))
    clip_scores = Path(params.paths.evaluation) / "clips.parquet"
    if clip_scores.exists():
        rows = [row for row in read_table(clip_scores, SCORES_SCHEMA) if row["system"] == OURS]
        tables.append(class_table(f"{SYSTEMS[OURS].label}, class by class", rows))
    for name, file in company.systems.items():
        parts = {part: scores.model_dump() for part, scores in file.clips.subsets.items()}
        for system in file.scores if parts else ():
            found = category_table(system, file.clips.by, parts)
            tables.append(replace(found, title=f"{name}: {found.title}", folded=True))
    return tables


def _incomparable(evaluation: Evaluation, file: Evaluation) -> str:
    """Why a system's scores do not compare with this experiment's; empty if they do."""
    mine, theirs = evaluation.clips, file.clips
    if theirs.as_published:
        return "as av-benchmark computes them, each metric on the files it happens to get"
    if (theirs.profile, theirs.judges) != (mine.profile, mine.judges):
        return f"by the judges of profile {theirs.profile} ({theirs.judges})"
    if (mine.hash, mine.duration_s) != (theirs.hash, theirs.duration_s):
        return "on other clips"
    return ""


def _other_entries(name: str, file: Evaluation, taken: set[str]) -> list[Entry]:
    return [
        Entry(
            title=f"{system} ({name})" if system in taken else system,
            scores=row,
            intervals=file.intervals.get(system, {}),
        )
        for system, row in file.scores.items()
        if system != TRUE
    ]


def _table_apart(name: str, file: Evaluation, why: str) -> ScoreTable:
    note = f"Scores {why}: they do not compare with those above."
    true = {name: row for name, row in file.scores.items() if name == TRUE}
    entries = system_entries(true) + _other_entries(name, file, set())
    return score_table(f"Other systems: {name}", entries, file.clips, note=note, legend=False)


def _experiments_table(this: Experiment, others: Sequence[Experiment]) -> ScoreTable:
    entries = [_experiment_entry(this, "this experiment", "")]
    for one in sorted(others, key=lambda one: _order(one.differences(this))):
        title = _named(one.differences(this)) or "the same settings"
        about = f"{one.name} {one.revision[:7]}"
        if one.baseline not in (this.baseline, one.revision):
            about += f", on {one.baseline[:7]}"
        entries.append(_experiment_entry(one, title, about, one.incomparable(this)))
    note = "SpecMaskFoley in other DVC experiments, by the settings that differ from this one."
    clips = this.evaluation.clips if all(entry.competes for entry in entries) else None
    ranked = this.evaluation.clips.ranked
    return score_table("Experiments", entries, clips, first="settings", note=note, legend=False, ranked=ranked)


def _settings_table(params: Params, evaluation: Evaluation, company: Company) -> ScoreTable:
    """The paper's Table 2, and beneath its rows the experiments that are like them."""
    this = company.this or _alone(params, evaluation)
    rows = published_settings()
    found = {row: like for row in rows if (like := measured_like(row, [this, *company.experiments]))}
    measured = {row: _measured_here(row, *like) for row, like in found.items()}
    note = (
        "?: not legible in the text at hand, where cells of the two text rows run together: 1.28 and 0.32 may stand "
        "for both, 0.27 for both rows of 12 steps."
    )
    if measured:
        note += (
            " Measured here: an experiment of this repository with the same system, cfg.mode and sample.steps; other "
            "settings of the sampling are named. Scores by mini judges do not compare with published ones. Times at "
            "batch 1: specmaskfoley bench."
        )
    return published_table("Published: backbone, steps and guidance", rows, measured, note)


def _alone(params: Params, evaluation: Evaluation) -> Experiment:
    """This experiment where nothing else is known of it, with the settings that rows of Table 2 mean."""
    settings = {name: attrgetter(name)(params) for name in (*SHOWN_SETTINGS, *PAPER_SAMPLING)}
    judges = {f"profiles.{params.profile}.judges.kind": params.judges.kind}
    return Experiment(
        name="workspace", revision="", baseline="", settings=settings | judges, evaluation=evaluation,
        judges=params.judges.kind,
    )  # fmt: skip


def _measured_here(row: Published, one: Experiment, other: Mapping[str, object]) -> Entry:
    profile = one.settings["profile"]
    judges = one.settings.get(f"profiles.{profile}.judges.kind")
    scores = one.evaluation.scores[row.system]
    about = [f"{one.name} {one.revision[:7]}".strip(), _named(other)]
    about += ["" if judges == "paper" else f"{judges} judges"]
    return Entry(title=f"measured here (profile {profile})", scores=scores, about=", ".join(filter(None, about)))


def _experiment_entry(one: Experiment, title: str, about: str = "", incomparable: str = "") -> Entry:
    return Entry(
        title=title,
        scores=one.evaluation.scores.get(OURS, {}),
        intervals=one.evaluation.intervals.get(OURS, {}),
        about=", ".join(filter(None, [about, incomparable])),
        competes=not incomparable,
    )


def _order(differences: Mapping[str, object]) -> list[tuple[str, bool, float, str]]:
    """Numbers in their own order, and before words."""
    return [
        (name, not isinstance(value, int | float), float(value) if isinstance(value, int | float) else 0.0, str(value))
        for name, value in differences.items()
    ]


def _named(settings: Mapping[str, object]) -> str:
    """`cfg.scale=3.0, cfg.mode=text`, as in params.yaml."""
    words: dict[object, str] = {None: "null", True: "true", False: "false"}
    return ", ".join(
        f"{name}={words[value] if value is None or isinstance(value, bool) else value}"
        for name, value in settings.items()
    )


# ---------------------------------------------------------------------- figures


def _figures(out: Path, evaluation: Evaluation, company: Company) -> list[tuple[str, Path]]:
    """Captions and pictures; removes those of an earlier report that had more to show."""
    found = []
    points = _points(evaluation, company)
    same_judges = evaluation.clips.judges == "paper"  # the published scores are by the same networks
    points += _published_points("published", ", published") if same_judges else []
    if points:
        path, caption = out / "fad_desync.png", "FAD against DeSync; bars are 95 % intervals over clips."
        if any(point.published for point in points):
            caption += " Hollow: published, on their authors' clips."
        pictures.quality_and_sync(path, points, "FAD against DeSync")
        found.append((caption, path))
    if not same_judges:
        path = out / "fad_desync_published.png"
        pictures.quality_and_sync(path, _published_points(), "Published on VGGSound: FAD against DeSync")
        found.append(("FAD against DeSync as published; other judges and clips than those of this experiment.", path))
    if company.this is not None and (swept := _steps(company.this, company.experiments)):
        caption, curves = swept
        path = out / "steps.png"
        pictures.scores_against_steps(path, curves, "SpecMaskFoley against the number of decoding steps")
        found.append((caption, path))
    for path in set(out.glob("*.png")) - {path for _, path in found}:
        path.unlink()
    return found


def _points(evaluation: Evaluation, company: Company) -> list[Point]:
    """This experiment's systems, and what compares with them."""
    entries = [
        ("this experiment" if entry.competes else "reference", entry)
        for entry in system_entries(evaluation.scores, evaluation.intervals)
    ]
    for name, file in company.systems.items():
        if not _incomparable(evaluation, file):
            entries += [("other systems", entry) for entry in _other_entries(name, file, set())]
    for one in company.experiments:
        if company.this is not None and not one.incomparable(company.this):
            # The last part of a name is enough here: the table has the whole.
            settings = {name.rsplit(".", 1)[-1]: value for name, value in one.differences(company.this).items()}
            entries.append(("other experiments", _experiment_entry(one, _named(settings) or one.name)))
    points = []
    for group, entry in entries:
        fad, desync = (_measured(name, entry.scores, entry.intervals) for name in ("fad", "desync"))
        if fad is not None and desync is not None:
            points.append(Point(label=entry.title, group=group, fad=fad, desync=desync))
    return points


def _published_points(group: str = "", suffix: str = "") -> list[Point]:
    """Grouped by method unless a group is given; the suffix tells our published row from what is measured here."""
    return [
        Point(
            label=row.title + (suffix if row.title == SYSTEMS[OURS].label else ""),
            group=group or row.group,
            fad=Measured(value=float(row.fad)),
            desync=Measured(value=float(row.desync)),
            published=True,
        )
        for row in published_systems()
        if row.fad != "?"
    ]


def _steps(this: Experiment, others: Sequence[Experiment]) -> tuple[str, dict[str, dict[int, Measured]]] | None:
    """Caption and curves of a sweep over the number of decoding steps; None without one."""
    members = sweep([this, *others], SWEPT)
    curves: dict[str, dict[int, Measured]] = {}
    for column in (COLUMNS["fad"], COLUMNS["desync"]):
        for one in members:
            scores, intervals = one.evaluation.scores.get(OURS, {}), one.evaluation.intervals.get(OURS, {})
            if (score := _measured(column.name, scores, intervals)) is not None:
                curves.setdefault(column.heading, {})[int(str(one.settings[SWEPT]))] = score
    if len(members) < 2 or len(curves) < 2:
        return None
    fixed = {name: value for name, value in members[0].differences(this).items() if name != SWEPT}
    caption = f"FAD and DeSync against {SWEPT}, in experiments that differ in nothing else"
    caption += f" ({_named(fixed)})" if fixed else ""
    return f"{caption}; bars are 95 % intervals over clips.", curves


def _measured(name: str, scores: Scores, intervals: Mapping[str, Interval]) -> Measured | None:
    value, interval = scores.get(name), intervals.get(name)
    if value is None or interval is None:
        return None if value is None else Measured(value=value)
    return Measured(value=value, low=interval.low, high=interval.high)
