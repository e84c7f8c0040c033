"""Stage prepare: clip list in, ledger out: every clip with its state, and a reason where it is unusable."""

from specmaskfoley.config import Params
from specmaskfoley.runtime import stage_main
from specmaskfoley.sources.inspection import inspect_clips
from specmaskfoley.storage import tables


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    clips = tables.read_table(params.paths.clip_list, tables.CLIP_LIST_SCHEMA)
    ledger = inspect_clips(clips, params)
    tables.write_table(params.paths.ledger, ledger, tables.LEDGER_SCHEMA)
    print(f"prepare: {tables.summarise(ledger)}")
    tables.ready_clips(params.paths.ledger)  # raises, with the reasons, if no clip is usable


if __name__ == "__main__":
    stage_main(main)()
