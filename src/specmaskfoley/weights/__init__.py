"""Official weight files: weights.lock.yaml says which, stage `fetch_weights` brings, `load_weights` reads them."""

from specmaskfoley.weights.loading import find_weights, load_weights, weights_folder

__all__ = ["find_weights", "load_weights", "weights_folder"]
