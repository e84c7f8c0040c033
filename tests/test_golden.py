"""Every component against numbers that the official implementations gave for weights made by rule.

`pytest tests/test_golden.py --golden DIR --clips DIR` checks another set of the same layout: nothing here knows
more of a set than its files say.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_rule import Golden, assert_golden, assert_summary, golden_input, golden_tensor

from specmaskfoley.storage.foreign import load_strictly


def test_deterministic_weights_have_the_recorded_values(golden: Golden) -> None:
    for entry in golden.spec("rule_check")["entries"]:
        values = golden_tensor(entry["key"], entry["shape"]).flatten()
        np.testing.assert_allclose(values[: len(entry["first"])], entry["first"], rtol=1e-5, atol=1e-7)
        assert float(values[-1]) == pytest.approx(entry["last"], rel=1e-5)
        assert float(values.mean()) == pytest.approx(entry["mean"], rel=1e-3, abs=1e-6)
        assert float(values.std(unbiased=False)) == pytest.approx(entry["std"], rel=1e-4)
