"""One file a metric: arrays in, numbers out."""
