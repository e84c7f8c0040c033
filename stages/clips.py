"""Stage clips: the source named by data.source in, clip list (and rendered clips) out."""

from collections import Counter

import own_code

from specmaskfoley.clips.listing import few_tests, list_clips
from specmaskfoley.settings import Params
from specmaskfoley.storage import tables


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    rows = list_clips(params)
    tables.write_table(params.paths.clip_list, rows, tables.CLIP_LIST_SCHEMA)
    splits = Counter(row["split"] for row in rows)
    print(f"clips: {len(rows)} listed ({', '.join(f'{splits[name]} {name}' for name in tables.SPLITS)})")
    if told := few_tests(sum(row["split"] == "test" and row["state"] == tables.LISTED for row in rows)):
        print(f"clips: {told}")


if __name__ == "__main__":
    own_code.run(main)
