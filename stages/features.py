"""Stage features: usable clips and encoders in; Parquet shards of video features and prompt embeddings out."""

import own_code

from specmaskfoley.extraction.extract import extract
from specmaskfoley.extraction.features import FeatureExtractor
from specmaskfoley.settings import Params


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    extract(params, FeatureExtractor, params.paths.features)


if __name__ == "__main__":
    own_code.run(main)
