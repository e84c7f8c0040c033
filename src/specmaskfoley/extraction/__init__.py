"""What is computed once of every clip and kept: video features, prompt embeddings, tokens.

`features.py` and `tokens.py` say what, `decoding.py` reads, `worker.py` does it unit by unit, `engines.py` spreads
units over this machine or a cluster, `extract.py` puts it together.
"""
