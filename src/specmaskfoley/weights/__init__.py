"""Official weight files: weights.lock.yaml says which, stage `fetch_weights` brings, `loading.load_weights` reads."""
