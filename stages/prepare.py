"""Stage prepare: clip list in; ledger (every clip, its state, the reason where it is unusable) and usable clips out."""

import own_code

from specmaskfoley.clips.inspection import inspect_clips
from specmaskfoley.clips.listing import few_tests
from specmaskfoley.settings import Params
from specmaskfoley.storage import tables


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    clips = tables.read_table(params.paths.clip_list, tables.CLIP_LIST_SCHEMA)
    ledger = inspect_clips(clips, params)
    ready = [row for row in ledger if row["state"] == "ready"]
    usable = [{name: row[name] for name in tables.USABLE_SCHEMA.names} for row in ready]
    tables.write_table(params.paths.ledger, ledger, tables.LEDGER_SCHEMA)
    tables.write_table(params.paths.usable, usable, tables.USABLE_SCHEMA)
    print(f"prepare: {tables.summarise(ledger)}")
    if not ready:
        raise ValueError(f"{params.paths.ledger}: no usable clip in any split: {tables.summarise(ledger)}")
    if told := few_tests(sum(row["split"] == "test" for row in ready)):
        print(f"prepare: {told}")


if __name__ == "__main__":
    own_code.run(main)
