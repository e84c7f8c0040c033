"""The table of metrics: complete, and the order of the files and of the tables."""

from __future__ import annotations

from specmaskfoley.metrics import COLUMNS, EXTRA, METRICS, SHOWN
from specmaskfoley.report.results import SCORES_SCHEMA


def test_every_metric_is_computed_in_one_way_and_says_what_is_better() -> None:
    for metric in METRICS:
        assert (metric.per_clip is None) != (metric.of_set is None), metric.name
        assert metric.better in ("lower", "higher"), metric.name
        assert metric.bounds[0] < metric.bounds[1], metric.name
        assert metric.about, metric.name
    assert len(COLUMNS) == len({column.title for column in COLUMNS.values()})


def test_tables_have_the_metrics_of_one_aspect_side_by_side() -> None:
    assert [metric.name for metric in METRICS] == ["fd", "fad", "kl", "isc", "ib", "desync", "onset_f1"]
    assert [metric.heading for metric in SHOWN] == [
        "FD ↓", "FAD ↓", "KL ↓", "IS ↑", "IB ↑", "DeSync (s) ↓", "Onset F1 ↑",
    ]  # fmt: skip


def test_further_metrics_are_named_and_stay_out_of_the_stages_files() -> None:
    assert [metric.heading for metric in EXTRA] == ["CLAP ↑", "PQ ↑", "PC", "CE ↑", "CU ↑"]
    for metric in EXTRA:
        assert metric.about, metric.name
        assert metric.name in COLUMNS, metric.name
        assert metric.name not in SCORES_SCHEMA.names, metric.name
