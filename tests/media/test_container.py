"""Time stamps in whole numbers against fractions."""

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest

from specmaskfoley.media.container import Ticks


@pytest.mark.parametrize("base", [Fraction(1, 90_000), Fraction(1, 1000), Fraction(1001, 30_000), Fraction(1, 44_100)])
@pytest.mark.parametrize("zero", [Fraction(0), Fraction(-1024, 44_100), Fraction(14, 10)])
def test_ticks_are_those_of_fractions(base, zero):
    ticks = Ticks(SimpleNamespace(time_base=base), zero)
    for stamp in (-3000, -1, 0, 1, 512, 1023, 90_001, 123_456_789):
        assert ticks.seconds(stamp) == float(stamp * base - zero)
        for rate in (500, 22_050, 48_000):
            assert ticks.samples(stamp, rate) == round((stamp * base - zero) * rate)
        for seconds in (0.0, 0.1, 10.0, float(max(Fraction(0), stamp * base - zero))):
            assert (stamp >= ticks.first(seconds)) == (stamp * base - zero >= Fraction(seconds))
    assert ticks.first(math.inf) == math.inf
