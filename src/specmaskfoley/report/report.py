"""What the report shows: this experiment, and beside it other systems, other experiments and published results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from specmaskfoley.report import pictures
from specmaskfoley.report import tables as score_tables
from specmaskfoley.report.experiments import Experiment, other_experiments, sweep, workspace
from specmaskfoley.report.page import ReportClip, ReportContext, write_markdown, write_report
from specmaskfoley.report.pictures import Measured, Point
from specmaskfoley.report.published import TABLE_1
from specmaskfoley.report.tables import (
    OURS,
    REFERENCES,
    SYSTEMS,
    Entry,
    Evaluation,
    Interval,
    OtherSystems,
    Row,
    ScoredClips,
    Table,
    read_other_systems,
    score_table,
    system_entries,
)
from specmaskfoley.settings import Params
from specmaskfoley.storage.curves import read_curves
from specmaskfoley.storage.tables import SCORES_SCHEMA, read_table, ready_clips
from specmaskfoley.systems import SYSTEMS as GENERATED
from specmaskfoley.systems import take_folder

JUDGES = {
    "mini": "The judges were trained by this pipeline on the training split, apart from the generator's encoders.",
    "paper": "The judges are official networks: PaSST (FD, KL), VGGish (FAD), ImageBind (IB), Synchformer (DeSync).",
}
SWEPT = "sample.steps"
_THIS, _REFERENCE, _SYSTEMS, _EXPERIMENTS = "this experiment", "reference", "other systems", "other experiments"


@dataclass(frozen=True, kw_only=True)
class Company:
    """What this experiment is shown beside.

    Attributes:
        this: the experiment itself with its settings; None where it is shown alone.
        systems: other systems by the name of their file.
        without: experiments that have no scores, and why.
    """

    this: Experiment | None = None
    experiments: Sequence[Experiment] = ()
    systems: Mapping[str, OtherSystems] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)


def compare(params_file: Path, out: Path, *, experiments: bool = True) -> Path:
    """The console command `specmaskfoley report`: write report.html, table.md and the figures into `out`.

    Returns:
        the page.

    Raises:
        ValueError, OSError: naming the setting or file and what to do.
    """
    params, params_file, out = Params.load(params_file), params_file.resolve(), out.resolve()
    os.chdir(params_file.parent)  # paths in params.yaml count from its own directory
    this = workspace(params_file)
    others, without = other_experiments(params_file.parent, this) if experiments else ([], {})
    files = sorted((Path(params.paths.metrics) / "systems").glob("*.json"))
    systems = {path.stem: read_other_systems(path) for path in files}
    company = Company(this=this, experiments=others, systems=systems, without=without)
    return write(params, out, this.evaluation, company)


def write(params: Params, out: Path, evaluation: Evaluation, company: Company | None = None) -> Path:
    """Draw the figures and training curves, then write `out`/report.html and `out`/table.md.

    Returns:
        the page.
    """
    company = company or Company()
    context = ReportContext(
        title="SpecMaskFoley",
        profile=params.profile,
        seed=params.seed,
        settings=_settings(params, company.this),
        tables=_tables(params, evaluation, company),
        figures=_figures(params, out / "figures", evaluation, company),
        curves=_curves(Path(params.paths.metrics) / "curves", out / "curve_pictures"),
        clips=_clips(params),
        notes=[JUDGES[params.judges.kind], *_outdated(company.this)],
        left_out=_left_out(evaluation, company),
    )
    write_markdown(out / "table.md", context)
    write_report(out / "report.html", context)
    return out / "report.html"


# ---------------------------------------------------------------------- this experiment


def _settings(params: Params, this: Experiment | None) -> dict[str, object]:
    settings: dict[str, object] = {
        "cfg.scale": params.cfg.scale,
        "cfg.mode": params.cfg.mode,
        "cfg.start": params.cfg.start,
        "sample.steps": params.sample.steps,
        "sample.gumbel_temperature": params.sample.gumbel_temperature,
        "evaluate.seeds": params.evaluate.seeds,
        "data.source": params.data.source,
    }
    return settings | ({"commit": this.baseline[:7]} if this is not None and this.baseline else {})


def _outdated(this: Experiment | None) -> list[str]:
    if this is None or not this.changed:
        return []
    return [f"These scores are of other settings than params.yaml now has ({', '.join(this.changed)}): run dvc repro."]


def _curves(curves: Path, out: Path) -> list[tuple[str, Path]]:
    found = []
    for csv in sorted(curves.glob("*.csv")):
        if points := read_curves(csv):  # official networks have none
            picture = out / f"{csv.stem}.png"
            pictures.training_curves(picture, points, csv.stem)
            found.append((f"Training curves: {csv.stem}", picture))
    return found


def _clips(params: Params) -> list[ReportClip]:
    """The test clips that have a picture."""
    metrics, samples = Path(params.paths.metrics), Path(params.paths.samples)
    drawn = {path.stem: path for path in (metrics / "pictures").glob("*.png")}
    if not drawn:
        return []
    shown = []
    for row in ready_clips(params.paths.usable, "test"):
        if row.clip_id in drawn:
            folders = {"ground_truth": samples / "ground_truth"} | {n: take_folder(params, n, 0) for n in GENERATED}
            sounds = {SYSTEMS[name][0]: folder / f"{row.clip_id}.flac" for name, folder in folders.items()}
            video = samples / "videos" / f"{row.clip_id}.mp4"
            clip = ReportClip(
                clip_id=row.clip_id,
                label=row.label,
                picture=drawn[row.clip_id],
                # The true sounds and the videos of the first clips only are kept.
                sounds={name: path for name, path in sounds.items() if path.exists()},
                video=video if video.exists() else None,
            )
            shown.append(clip)
    return shown


def _left_out(evaluation: Evaluation, company: Company) -> dict[str, Mapping[str, str]]:
    clips = evaluation.clips
    lists = {
        "Clips not scored": clips.excluded if clips else {},
        "Clips scored although odd": clips.noted if clips else {},
        "Experiments without scores": company.without,
    }
    for name, file in company.systems.items():
        if file.clips is not None:
            lists[f"Clips not scored: {name}"] = file.clips.excluded
            lists[f"Clips scored although odd: {name}"] = file.clips.noted
    return {heading: names for heading, names in lists.items() if names}


# ---------------------------------------------------------------------- tables


def _tables(params: Params, evaluation: Evaluation, company: Company) -> list[Table]:
    entries = system_entries(evaluation.scores, evaluation.intervals)
    apart = []
    for name, file in company.systems.items():
        if why := _apart(params, evaluation, file):
            apart.append(_table_apart(name, file, why))
        else:
            entries += _others(name, file, {entry.title for entry in entries})
    tables = [score_table("Scores", entries, evaluation.clips)]
    if evaluation.clips is not None:
        for name, part in evaluation.clips.subsets.items():
            facts = {"takes": evaluation.clips.takes, "duration_s": evaluation.clips.duration_s}
            clips = ScoredClips(clips=part.clips, hash=part.hash, **facts)
            tables.append(score_table(f"Subset {name}", system_entries(part.scores, {}), clips, legend=False))
    tables += apart
    if company.this is not None and company.experiments:
        tables.append(_experiments_table(company.this, company.experiments))
    tables.append(score_tables.published_table("Published on VGGSound", TABLE_1))
    per_clip = Path(params.paths.evaluation) / "clips.parquet"
    if per_clip.exists():
        rows = [row for row in read_table(per_clip, SCORES_SCHEMA) if row["system"] == OURS]
        names = [name for name in ("kl", "ib", "desync", "onset_f1") if any(row[name] is not None for row in rows)]
        tables.append(score_tables.class_table("SpecMaskFoley, class by class", rows, names))
    return tables


def _apart(params: Params, evaluation: Evaluation, file: OtherSystems) -> str:
    """Why a system's scores do not compare with this experiment's; empty if they do."""
    mine, theirs = evaluation.clips, file.clips
    if file.as_published:
        return "as av-benchmark computes them, each metric on the files it happens to get"
    if (file.profile, file.judges) != (params.profile, params.judges.kind):
        return f"by the judges of profile {file.profile} ({file.judges})"
    if mine is None or theirs is None or (mine.hash, mine.duration_s) != (theirs.hash, theirs.duration_s):
        return "on other clips"
    return ""


def _others(name: str, file: OtherSystems, taken: set[str]) -> list[Entry]:
    return [
        Entry(
            title=f"{system} ({name})" if system in taken else system,
            scores=row,
            intervals=file.intervals.get(system, {}),
        )
        for system, row in file.systems.items()
    ]


def _table_apart(name: str, file: OtherSystems, why: str) -> Table:
    note = f"Scores {why}: they do not compare with those above."
    reference = {"ground_truth": file.reference} if file.reference else {}
    entries = system_entries(reference, {}) + _others(name, file, set())
    return score_table(f"Other systems: {name}", entries, file.clips, note=note, legend=False)


def _experiments_table(this: Experiment, others: Sequence[Experiment]) -> Table:
    entries = [_experiment_entry(this, "this experiment", "")]
    for one in sorted(others, key=lambda one: _order(one.differences(this))):
        differences = one.differences(this)
        title = ", ".join(f"{name}={_shown(value)}" for name, value in differences.items()) or "the same settings"
        about = f"{one.name} {one.revision[:7]}"
        if one.baseline not in (this.baseline, one.revision):
            about += f", on {one.baseline[:7]}"
        entries.append(_experiment_entry(one, title, about, one.incomparable(this)))
    note = "SpecMaskFoley in other DVC experiments, by the settings that differ from this one."
    clips = this.evaluation.clips if all(entry.competes for entry in entries) else None
    return score_table("Experiments", entries, clips, first="settings", note=note, legend=False)


def _experiment_entry(one: Experiment, title: str, about: str, incomparable: str = "") -> Entry:
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


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# ---------------------------------------------------------------------- figures


def _figures(params: Params, out: Path, evaluation: Evaluation, company: Company) -> list[tuple[str, Path]]:
    found = []
    points = _points(params, evaluation, company)
    together = params.judges.kind == "paper"  # the same judges as those of the published scores
    points += _published_points("published", ", published") if together else []
    if points:
        path, caption = out / "fad_desync.png", "FAD against DeSync; bars are 95 % intervals over clips."
        if any(point.published for point in points):
            caption += " Hollow: published, on their authors' clips."
        pictures.quality_and_sync(path, points, "FAD against DeSync")
        found.append((caption, path))
    if not together:
        path = out / "fad_desync_published.png"
        pictures.quality_and_sync(path, _published_points(), "Published on VGGSound: FAD against DeSync")
        found.append(("FAD against DeSync as published; other judges and clips than those of this experiment.", path))
    if company.this is not None and (swept := _steps(company.this, company.experiments)):
        caption, curves = swept
        path = out / "steps.png"
        pictures.scores_against_steps(path, curves, "SpecMaskFoley against the number of decoding steps")
        found.append((caption, path))
    for path in set(out.glob("*.png")) - {path for _, path in found}:
        path.unlink()  # of an earlier report, which had more to show
    return found


def _points(params: Params, evaluation: Evaluation, company: Company) -> list[Point]:
    """This experiment's systems, and what compares with them."""
    rows = [
        (
            SYSTEMS.get(name, (name, ""))[0],
            _REFERENCE if name in REFERENCES else _THIS,
            row,
            evaluation.intervals.get(name),
        )
        for name, row in evaluation.scores.items()
    ]
    for file in company.systems.values():
        if not _apart(params, evaluation, file):
            rows += [(name, _SYSTEMS, row, file.intervals.get(name)) for name, row in file.systems.items()]
    for one in company.experiments:
        if company.this is not None and not one.incomparable(company.this):
            # The last part of a name is enough here: the table has the whole.
            settings = {name.rsplit(".", 1)[-1]: value for name, value in one.differences(company.this).items()}
            label = ", ".join(f"{name}={_shown(value)}" for name, value in settings.items()) or one.name
            scores, intervals = one.evaluation.scores, one.evaluation.intervals
            rows.append((label, _EXPERIMENTS, scores.get(OURS, {}), intervals.get(OURS)))
    points = []
    for label, group, row, interval in rows:
        fad, desync = _measured("fad", row, interval or {}), _measured("desync", row, interval or {})
        if fad is not None and desync is not None:
            points.append(Point(label=label, group=group, fad=fad, desync=desync))
    return points


def _published_points(group: str = "", suffix: str = "") -> list[Point]:
    """Grouped by method, or all in one; the suffix tells our own apart from what is measured here."""
    return [
        Point(
            label=row.system + (suffix if row.system == SYSTEMS[OURS][0] else ""),
            group=group or row.method,
            fad=Measured(value=float(row.fad)),
            desync=Measured(value=float(row.desync)),
            published=True,
        )
        for row in TABLE_1
    ]


def _steps(this: Experiment, others: Sequence[Experiment]) -> tuple[str, dict[str, dict[int, Measured]]] | None:
    """Caption and curves of a sweep over the number of decoding steps; None without one."""
    members = sweep([this, *others], SWEPT)
    curves: dict[str, dict[int, Measured]] = {}
    for name in ("fad", "desync"):
        title, direction, *_ = score_tables.METRICS[name]
        for one in members:
            score = _measured(name, one.evaluation.scores.get(OURS, {}), one.evaluation.intervals.get(OURS, {}))
            if score is not None:
                curves.setdefault(f"{title} {direction}", {})[int(str(one.settings[SWEPT]))] = score
    if len(members) < 2 or len(curves) < 2:
        return None
    fixed = {name: value for name, value in members[0].differences(this).items() if name != SWEPT}
    caption = f"FAD and DeSync against {SWEPT}, in experiments that differ in nothing else"
    if fixed:
        caption += f" ({', '.join(f'{name}={_shown(value)}' for name, value in fixed.items())})"
    return f"{caption}; bars are 95 % intervals over clips.", curves


def _measured(name: str, row: Row, intervals: Mapping[str, Interval]) -> Measured | None:
    value, interval = row.get(name), intervals.get(name)
    if value is None:
        return None
    if interval is None:
        return Measured(value=value)
    return Measured(value=value, low=interval.low, high=interval.high)
