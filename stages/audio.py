"""Stage audio: folders of sounds without picture in; ledger and Parquet shards of tokens and audio prompts out."""

import own_code

from specmaskfoley.extraction.sounds import extract_sounds
from specmaskfoley.settings import Params


def main(params_file: str = "params.yaml") -> None:
    extract_sounds(Params.load(params_file))


if __name__ == "__main__":
    own_code.run(main)
