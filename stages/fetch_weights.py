"""Stage fetch_weights: weights.lock.yaml in; the official files that the profile needs, and a list of them, out."""

import own_code

from specmaskfoley.settings import Params
from specmaskfoley.storage.files import write_json
from specmaskfoley.weights.fetching import describe, fetch, restrictions, transfer_of
from specmaskfoley.weights.lock import read_lock


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    lock, needed, weights = read_lock(), params.needed_weights(), params.weights
    records = fetch(needed, lock, weights.folder, transfer_of(weights), weights.bundle)
    write_json(params.paths.weights, describe(records, lock))
    for line in restrictions(needed, lock):
        print(f"fetch_weights: {line}")


if __name__ == "__main__":
    own_code.run(main)
