"""Stage clips: the source named by data.source in, clip list (and rendered clips) out."""

import own_code  # noqa: F401

from specmaskfoley.clips.listing import list_clips
from specmaskfoley.device import stage_main
from specmaskfoley.settings import Params
from specmaskfoley.storage import tables


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    rows = list_clips(params)
    tables.write_table(params.paths.clip_list, rows, tables.CLIP_LIST_SCHEMA)
    splits = ", ".join(f"{sum(row['split'] == name for row in rows)} {name}" for name in tables.SPLITS)
    print(f"clips: {len(rows)} listed ({splits})")


if __name__ == "__main__":
    stage_main(main)()
