"""Stage tokens: usable clips and codec in, Parquet shards of token grids out."""

import own_code

from specmaskfoley.extraction.extract import extract
from specmaskfoley.extraction.tokens import TokenExtractor
from specmaskfoley.settings import Params


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    extract(params, TokenExtractor, params.paths.tokens)


if __name__ == "__main__":
    own_code.run(main)
