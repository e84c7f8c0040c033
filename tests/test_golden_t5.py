"""T5's tokens and their mask against what AudioCraft's conditioner made of them.

The golden set has a vocabulary of its own, of which `t5_tokenizer` has the words and their ids. What the projection
makes of masked rows belongs to the backbone.

`pytest tests/test_golden_t5.py --golden DIR` checks another set of the same layout.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from helpers.golden_rule import Golden
from helpers.small_t5 import SmallT5, write_t5

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)


def test_tokens_and_their_mask(golden: Golden, tmp_path: Path):
    recorded = golden.spec("magnet_text")["checked_with_transformers"]
    texts = [text or "" for text in recorded["texts"]]
    longest = len(recorded["input_ids"][0])
    t5 = SmallT5(write_t5(tmp_path), longest + 2).eval()
    encoded = t5.tokenizer.encode_batch(texts)
    assert [text.ids for text in encoded] == [[*ids, 0, 0] for ids in recorded["input_ids"]]
    assert [text.attention_mask for text in encoded] == [[*mask, 0, 0] for mask in recorded["tokenizer_mask"]]
    said = t5.embed_text(texts).abs().amax(2) > 0
    assert said.int().tolist() == [[*mask, 0, 0] for mask in recorded["mask_after_tokenize"]]
