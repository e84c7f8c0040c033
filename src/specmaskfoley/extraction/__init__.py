"""What is computed once of every clip and kept in shards: video features, prompt embeddings, tokens.

`features.py`, `tokens.py` and `sounds.py` say what; `decoding.py` reads files in other processes, `worker.py` feeds a
network with them, `cluster.py` has many workers, and `extract.py` puts it together.
"""
