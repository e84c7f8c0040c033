"""What a model knows, and what it says of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from specmaskfoley.clips.listing import clip_row
from specmaskfoley.clips.world import LABELS
from specmaskfoley.foley.knowledge import Knowledge
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import USABLE_SCHEMA, write_table

MINI = Knowledge("SpecMaskFoley mini", tuple(sorted(LABELS)), any_text=False)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("hammer hitting a nail", "hammering nail"),
        ("Drums!", "playing drum"),
        ("a bell rings", "church bell ringing"),
        ("RAIN", "rain falling"),
        ("knock at the door", "knocking on door"),
        ("a ball on a wooden floor", "ball bouncing on wood"),
        ("steps on gravel", "footsteps on gravel"),
        ("dog barking", None),
        ("typing on a keyboard", None),
        ("falsetto", None),
        ("犬", None),
        ("on the", None),
        ("", None),
    ],
)
def test_the_nearest_sound_has_words_in_common(text: str, label: str | None):
    assert MINI.nearest(text) == label


def test_a_text_that_the_model_was_not_trained_on_is_named():
    assert MINI.remark("dog barking") == (
        '"dog barking" is not among the 12 sounds that this model was trained on, and is like none of them'
    )
    assert MINI.remark("drums") == (
        '"drums" is not among the 12 sounds that this model was trained on; the nearest by its words is "playing drum"'
    )


@pytest.mark.parametrize("text", [*LABELS, "Hammering nail.", "door, knocking on the", " ", ""])
def test_nothing_is_said_of_a_known_sound_or_of_none(text: str):
    assert MINI.remark(text) == ""


def test_nothing_is_said_where_any_text_is_understood_or_the_sounds_are_not_known():
    assert Knowledge("SpecMaskFoley vggsound", MINI.words, any_text=True).remark("dog barking") == ""
    assert Knowledge("SpecMaskFoley mini", (), any_text=False).remark("dog barking") == ""


def test_the_sounds_are_those_of_the_training_clips(tmp_path: Path):
    """Not those of the other splits, and only of the usable ones."""
    (tmp_path / "data").mkdir()
    places = [("b", "train"), ("a", "train"), ("b", "train"), ("c", "val")]
    rows = [
        clip_row(str(number), Path(f"{number}.mp4"), label, split, "folder", state="ready") | {"sha256": "0"}
        for number, (label, split) in enumerate(places)
    ]
    known = set(USABLE_SCHEMA.names)
    rows = [{name: value for name, value in row.items() if name in known} for row in rows]
    write_table(tmp_path / "data" / "usable.parquet", rows, USABLE_SCHEMA)
    found = Knowledge.of(Params.load(), tmp_path)
    assert found == Knowledge("SpecMaskFoley mini", ("a", "b"), any_text=False)
    assert found.sentence == "SpecMaskFoley mini; trained on 2 sounds: a, b"
    assert Knowledge.of(Params.load(profile="vggsound"), tmp_path).any_text


def test_of_many_sounds_some_are_named():
    many = Knowledge("SpecMaskFoley vggsound", tuple(f"sound {number:03}" for number in range(309)), any_text=True)
    assert many.sentence.startswith("SpecMaskFoley vggsound; trained on 309 sounds: sound 000, sound 020, ")
    assert many.sentence.endswith(", ...; it takes other texts, too")
    assert len(many.sentence) < 300


def test_a_model_whose_sounds_are_not_known_says_so(tmp_path: Path):
    found = Knowledge.of(Params.load(), tmp_path)
    assert found.sentence == "SpecMaskFoley mini; which sounds it was trained on is not known"
