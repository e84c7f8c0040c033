"""Stage report: metrics, curves, pictures and sounds in; metrics/report.html and metrics/table.md out."""

from pathlib import Path

from specmaskfoley import pictures, tracking
from specmaskfoley.config import Params
from specmaskfoley.runtime import stage_main
from specmaskfoley.storage import report
from specmaskfoley.storage.curves import read_curves
from specmaskfoley.storage.files import read_json
from specmaskfoley.storage.report import ReportClip, ReportContext
from specmaskfoley.storage.tables import ready_clips
from specmaskfoley.synthesis import SYSTEMS

JUDGES = {
    "mini": "The judges were trained by this pipeline on the training split, apart from the generator's encoders.",
    "paper": "The judges are official networks: PaSST (FD, KL), VGGish (FAD), ImageBind (IB), Synchformer (DeSync).",
}


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    metrics = Path(params.paths.metrics)
    with tracking.stage_run("report", params) as log:
        for csv in sorted((metrics / "curves").glob("*.csv")):
            if curves := read_curves(csv):  # official networks have none
                pictures.training_curves(metrics / "curve_pictures" / f"{csv.stem}.png", curves, csv.stem)
        context = report_context(params)
        report.write_report(metrics / "report.html", context)
        report.write_markdown_table(metrics / "table.md", context.scores)
        for name in ("report.html", "table.md", "evaluate.json", "pictures"):
            log.artifact(metrics / name, "pictures" if name == "pictures" else "")
        log.artifact(Path(params.paths.samples) / "videos", "videos")
    print(f"report: {metrics / 'report.html'}")


def report_context(params: Params) -> ReportContext:
    """What the report shows: scores, settings, curves, and the clips that have a picture."""
    metrics, samples = Path(params.paths.metrics), Path(params.paths.samples)
    clips = []
    for row in ready_clips(params.paths.usable, "test"):
        picture, video = metrics / "pictures" / f"{row.clip_id}.png", samples / "videos" / f"{row.clip_id}.mp4"
        if picture.exists():
            sounds = {name: samples / name / f"{row.clip_id}.flac" for name in ("ground_truth", *SYSTEMS)}
            clips.append(
                ReportClip(
                    clip_id=row.clip_id,
                    label=row.label,
                    picture=picture,
                    sounds=sounds,
                    video=video if video.exists() else None,
                )
            )
    return ReportContext(
        title="SpecMaskFoley",
        profile=params.profile,
        seed=params.seed,
        scores=read_json(metrics / "evaluate.json"),
        settings={
            "cfg.scale": params.cfg.scale,
            "cfg.mode": params.cfg.mode,
            "sample.steps": params.sample.steps,
            "sample.gumbel_temperature": params.sample.gumbel_temperature,
            "data.source": params.data.source,
        },
        curves=[(picture.stem, picture) for picture in sorted((metrics / "curve_pictures").glob("*.png"))],
        clips=clips,
        notes=[JUDGES[params.judges.kind]],
    )


if __name__ == "__main__":
    stage_main(main)()
