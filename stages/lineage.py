"""Stage lineage: this project's source files in; for each stage the list of those that its result depends on out.

It runs first and keeps its output, so that settings which cannot work here are refused before DVC removes anything.
"""

from pathlib import Path

import own_code

from specmaskfoley import lineage
from specmaskfoley.device import pick_device
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import atomic_path


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    pick_device(params.run.device)
    folder = Path(params.paths.code)
    for stage in lineage.stages():
        lines = [f"{digest}  {file}\n" for file, digest in lineage.stage_code(stage, params).items()]
        with atomic_path(folder / f"{stage}.txt") as path:
            path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    own_code.run(main)
