"""Stage report: scores, curves, pictures and sounds in; metrics/report.html, metrics/table.md and figures out."""

from pathlib import Path

import own_code

from specmaskfoley import tracking
from specmaskfoley.report.report import write_all
from specmaskfoley.report.results import read_folder
from specmaskfoley.settings import Params


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    metrics = Path(params.paths.metrics)
    with tracking.stage_run("report", params) as log:
        page = write_all(params, metrics, read_folder(metrics))
        for name in ("report.html", "table.md", "scores.json", "intervals.json", "clips.json"):
            log.artifact(metrics / name)
        for name in ("systems", "pictures", "figures"):
            log.artifact(metrics / name, name)
        log.artifact(Path(params.paths.samples) / "videos", "videos")
    print(f"report: {page}")


if __name__ == "__main__":
    own_code.run(main)
