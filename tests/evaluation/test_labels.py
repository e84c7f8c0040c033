"""Tables of words and categories: what is read of them, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from specmaskfoley.evaluation.labels import categories, read_labels, words

CLIPS = ["0", "17", "2322"]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_foleybench(tmp_path):
    """Its columns, and a last one of JSON."""
    table = written(
        tmp_path / "foleybench.csv",
        "key,duration,dataset,width,height,caption,discrete_vs_rest,source_type,sound_type,ucs_category,"
        "audioset_category,metadata\n"
        '0,8.0,a,640,360,"Steps on wood, slowly.",Discrete,Single-source,Sound effect,FOOTSTEPS,Walk,"{""a"": ""x""}"\n'
        "17,10.0,a,640,360,A hammer,Discrete,Single-source,Sound effect,TOOLS,Hammer,{}\n"
        "2322,8.0,b,640,360,Rain,Rest,Multi-source,Sound effect,FOOTSTEPS,Rain,{}\n"
        "99,8.0,b,640,360,Not here,Rest,Multi-source,Sound effect,RAIN,Rain,{}\n",
    )
    labels = read_labels(table, CLIPS)
    assert words(labels, table) == {"0": "Steps on wood, slowly.", "17": "A hammer", "2322": "Rain"}
    assert categories(labels, "ucs_category", table) == {"FOOTSTEPS": {"0", "2322"}, "TOOLS": {"17"}}
    assert list(categories(labels, "discrete_vs_rest", table)) == ["Discrete", "Rest"]


def test_other_tables(tmp_path):
    benchmark = written(tmp_path / "captions.csv", "\ufeffname, caption\n17,a hammer\n0,\n")
    assert words(read_labels(benchmark, CLIPS), benchmark) == {"17": "a hammer", "0": ""}
    odd = written(tmp_path / "odd.csv", 'id,caption\n0,"two\nlines"\n17,one\u2028line\n')
    assert words(read_labels(odd, CLIPS), odd) == {"0": "two\nlines", "17": "one\u2028line"}
    ours = written(tmp_path / "labels.tsv", "id\tlabel\tsplit\r\n17\tbell, large\ttest\r\n0\tbell, large\ttest\r\n")
    labels = read_labels(ours, CLIPS)
    assert words(labels, ours) == {"17": "bell, large", "0": "bell, large"}
    assert categories(labels, "label", ours) == {"bell, large": {"0", "17"}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.csv", None, "no such file"),
        ("empty.csv", "", "expected a header with clip_id, id, name or key; found ''"),
        ("header.csv", "youtube,caption\n0,x\n", "expected a header with .* found 'youtube, caption'"),
        ("commas.tsv", "id,label\n0,x\n", "expected a header"),
        ("twice.csv", "id,label\n0,x\n17,y\n0,z\n", r"twice\.csv:4: '0' already stands above"),
        (
            "long.csv",
            "id,caption\n0,steps, slowly\n",
            r"long\.csv:2: more cells than the header; quote text with commas",
        ),
        ("other.csv", "id,label\nelsewhere,x\n", "its column id names none of the 3 clips"),
    ],
)
def test_a_table_of_no_use_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_labels(path, CLIPS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_has_to_be_there(tmp_path):
    table = written(tmp_path / "t.csv", "id,kind\n0,x\n")
    labels = read_labels(table, CLIPS)
    with pytest.raises(ValueError, match="needs words in a column caption or label"):
        words(labels, table)
    silent = written(tmp_path / "silent.csv", "id,caption\n0,\n")
    with pytest.raises(ValueError, match=r"silent\.csv: --extra clap needs words"):
        words(read_labels(silent, CLIPS), silent)
    with pytest.raises(ValueError, match=r"--by colour: .*t\.csv has the columns id, kind"):
        categories(labels, "colour", table)
    with pytest.raises(ValueError, match="give a table of them by --labels"):
        words({}, None)
    with pytest.raises(ValueError, match="give it by --labels"):
        categories({}, "colour", None)
