from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from specmaskfoley.clips.folder import assign_splits, find_videos, read_labels, words
from specmaskfoley.clips.listing import list_clips
from specmaskfoley.settings import Data
from specmaskfoley.storage.tables import SPLITS


def params(tmp_path, folder="videos", labels=None, val=0.05, test=0.1):
    """What the source reads of Params."""
    return SimpleNamespace(
        seed=0,
        data=Data(source="folder", folder=str(tmp_path / folder), labels=labels and str(labels)),
        prepare=SimpleNamespace(val_fraction=val, test_fraction=test),
        paths=SimpleNamespace(clips=str(tmp_path / "out" / "clips")),
    )


def make(tmp_path, *names):
    for name in names:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def tsv(tmp_path, text):
    path = tmp_path / "labels.tsv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_videos_are_found_by_suffix_everywhere(tmp_path):
    make(tmp_path, "b.MP4", "sub/deep/a.webm", "note.txt", ".hidden.mp4", ".dir/c.mp4", "-dash 'q\".mkv", "a.b.mov")
    assert find_videos(tmp_path / "videos") == {
        "-dash 'q\"": Path("-dash 'q\".mkv"),
        "a.b": Path("a.b.mov"),
        "b": Path("b.MP4"),
        "sub__deep__a": Path("sub/deep/a.webm"),
    }


def test_two_files_of_one_id_are_both_named(tmp_path):
    make(tmp_path, "a.mp4", "a.mkv")
    with pytest.raises(ValueError, match=r"'a\.mkv' and 'a\.mp4' would both be the clip 'a'"):
        find_videos(tmp_path / "videos")
    make(tmp_path, "s/x.mp4", "s__x.mp4")
    (tmp_path / "videos" / "a.mkv").unlink()
    with pytest.raises(ValueError, match="s__x"):
        find_videos(tmp_path / "videos")


def test_rows_carry_labels_splits_and_missing_videos(tmp_path):
    make(tmp_path, "dog_bark-01.mp4", "sub/cat.mkv", "x.avi")
    labels = tsv(
        tmp_path, 'id\tlabel\tsplit\r\nsub/cat\tcat, "meowing"\ttest\r\n\r\nx.avi\thammer\r\ngone\tbell\tval\r\n'
    )
    rows = {row["clip_id"]: row for row in list_clips(params(tmp_path, labels=labels))}
    assert rows["sub__cat"]["label"] == 'cat, "meowing"'
    assert rows["sub__cat"]["split"] == "test"
    assert Path(rows["sub__cat"]["path"]).is_file()
    assert rows["x"]["label"] == "hammer"
    assert rows["dog_bark-01"]["label"] == "dog bark"
    assert (rows["gone"]["split"], Path(rows["gone"]["path"]).exists()) == ("val", False)
    assert {row["events"] for row in rows.values()} == {None}
    assert {row["split"] for row in rows.values()} == {"train", "val", "test"}
    assert (tmp_path / "out" / "clips").is_dir()


def test_bare_name_serves_while_it_is_unique(tmp_path):
    make(tmp_path, "one/a.mp4", "two/b.mp4", "three/b.mp4")
    rows = list_clips(params(tmp_path, labels=tsv(tmp_path, "id\tlabel\na\tdrum\n")))
    assert next(row for row in rows if row["clip_id"] == "one__a")["label"] == "drum"
    with pytest.raises(ValueError, match=r"labels\.tsv:2: 'b' may be any of"):
        list_clips(params(tmp_path, labels=tsv(tmp_path, "id\tlabel\nb\tdrum\n")))
    with pytest.raises(ValueError, match=r"labels\.tsv:3: clip 'one__a' already stands in line 2"):
        list_clips(params(tmp_path, labels=tsv(tmp_path, "id\tlabel\na\tdrum\none/a\tdrum\n")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":1: expected lines id<TAB>label or id<TAB>label<TAB>split, found nothing"),
        ("\ufeff\r\n", r":1: expected lines id<TAB>label or"),
        ("id\tname\na\tdog\n", r":1: expected the header id<TAB>label or .*, or none; found 'id\\tname'"),
        ("label\tid\na\tdog\n", r":1: expected the header"),
        ("id,label\na,dog\n", r":1: expected id<TAB>label or .*, separated by tabs; found 'id,label'"),
        ("---g-f_I2yQ,1,people marching,test\n", r":1: expected .* found '---g-f_I2yQ,1,people marching,test'"),
        ("id\tlabel\na\tdog\tx\n", r":2: expected .* found 'a\\tdog\\tx'"),
        ("id\tlabel\na dog\n", r":2: expected .*, separated by tabs; found 'a dog'"),
        ("a\tdog\nb    cat\n", r":2: expected .*, separated by tabs; found 'b    cat'"),
        ("a\tdog\ttrain\t1\n", r":1: expected "),
        ("a\tdog\tdev\n", r":1: split 'dev' is not one of train, val, test"),
        ("id\tlabel\n\na\t \n", r":3: the label is empty"),
        ("id\tlabel\n\tdog\n", r":2: the id is empty"),
        ("id\tlabel\tsplit\na\tdog\tdev\n", r":2: split 'dev' is not one of train, val, test"),
        ("id\tlabel\na\tdog\na\tcat\n", r":3: 'a' already stands in line 2"),
        (b"id\tlabel\na\t\xff\n", r"not UTF-8"),
    ],
)
def test_wrong_labels_name_the_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"labels\.tsv: ?" + message if "UTF" in message else message):
        read_labels(tsv(tmp_path, text))


def test_labels_file_that_is_absent_names_the_setting(tmp_path):
    with pytest.raises(ValueError, match=r"data\.labels="):
        read_labels(tmp_path / "absent.tsv")


CELL = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


HEADERS = ("", "id\tlabel", "ID\tLabel", "id\tlabel\tsplit")


@given(
    st.dictionaries(st.integers(0, 10**6), st.tuples(CELL, st.sampled_from(["", *SPLITS])), min_size=1, max_size=8),
    st.sampled_from(HEADERS),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_label_survives(tmp_path_factory, labels, header, mark, end):
    """With and without a header, and however an editor saved it."""
    path = tmp_path_factory.mktemp("labels") / "l.tsv"
    splits = {"": ("", *SPLITS), "id\tlabel\tsplit": ("", *SPLITS)}.get(header, ("",))
    wanted = [(f"clip{key}", label, split) for key, (label, split) in labels.items() if split in splits]
    lines = ["\t".join(filter(None, one)) for one in wanted]
    assume(wanted and (header or wanted[0][1].strip().casefold() not in ("id", "label", "split")))
    path.write_bytes((mark + end.join([header, *lines] if header else lines) + end).encode())
    assert [(found.clip, found.label, found.split or "") for found in read_labels(path)] == [
        (clip, label.strip(), split) for clip, label, split in wanted
    ]


def test_missing_folder_and_no_video_name_the_setting(tmp_path):
    with pytest.raises(ValueError, match=r"data\.folder=.*is not a directory; set it"):
        list_clips(params(tmp_path))
    (tmp_path / "videos").mkdir()
    with pytest.raises(ValueError, match=r"data\.folder=.*holds no video"):
        list_clips(params(tmp_path))


@pytest.mark.parametrize(
    ("stem", "label"),
    [("dog_bark-01", "dog bark"), ("Playing.drums 3", "Playing drums"), ("0042", "0042"), ("___", "___")],
)
def test_words(stem, label):
    assert words(stem) == label


def rows(names, stated=None):
    return [{"clip_id": name, "split": (stated or {}).get(name), "state": "listed"} for name in names]


@given(st.sets(st.text(max_size=5), min_size=3, max_size=30))
def test_no_split_is_empty_from_three_clips_on_and_from_four_on_two_are_for_the_test(names):
    found = rows(sorted(names))
    assign_splits(found, 0.05, 0.1)
    assert {row["split"] for row in found} == {"train", "val", "test"}
    assert sum(row["split"] == "test" for row in found) >= (2 if len(found) > 3 else 1)
    again = rows(sorted(names, reverse=True))
    assign_splits(again, 0.05, 0.1)
    assert sorted(again, key=str) == sorted(found, key=str)


def test_clips_without_a_file_are_no_test_clips():
    found = rows("abcdefgh", {"a": "test", "b": "test"})
    for row in found[:2]:
        row["state"] = "missing"
    assign_splits(found, 0.0, 0.0)
    assert sum(row["split"] == "test" for row in found[2:]) == 2


def test_splits_follow_the_fractions_and_new_clips_move_nobody():
    few, many = rows([f"c{i}" for i in range(500)]), rows([f"c{i}" for i in range(4000)])
    assign_splits(few, 0.05, 0.1)
    assign_splits(many, 0.05, 0.1)
    assert few == many[:500]
    assert sum(row["split"] == "test" for row in many) == pytest.approx(400, rel=0.15)
    assert sum(row["split"] == "val" for row in many) == pytest.approx(200, rel=0.2)


def test_stated_splits_stay():
    stated = dict.fromkeys("abcd", "train")
    found = rows("abcdef", stated)
    assign_splits(found, 0.0, 0.0)
    assert {row["clip_id"]: row["split"] for row in found}.items() >= stated.items()
    assert {row["split"] for row in found} == {"train", "val", "test"}
    with pytest.raises(ValueError, match="leave nothing for training"):
        assign_splits(rows("a"), 0.5, 0.5)


# ------------------------------------------------------------------ a copy of VGGSound

LISTS = {
    "train": "id\tlabel\n-aaaaaaaaaa_000010\tdog barking\nbbbb_bbbbbb_000030\tplaying violin, fiddle\n"
    "vvvvvvvvvvv_000001\tdog barking\n",
    "val": "id\tlabel\nvvvvvvvvvvv_000200\tdog barking\n",
    "test": "id\tlabel\nccccccccccc_000118\ta bell\n",
}


def vggsound(tmp_path, **data):
    (tmp_path / "lists").mkdir(exist_ok=True)
    for split, text in LISTS.items():
        (tmp_path / "lists" / f"{split}.tsv").write_text(text)
    (tmp_path / "videos").mkdir(exist_ok=True)
    found = params(tmp_path)
    found.data = Data(source="folder", folder=str(tmp_path / "videos"), lists=str(tmp_path / "lists"), **data)
    return found


def test_a_copy_of_vggsound_is_found_by_pattern_and_the_rest_is_missing(tmp_path, capsys):
    settings = vggsound(tmp_path, pattern="{split}/{youtube_id}_{start_ms}_{end_ms}.mp4")
    make(tmp_path, "train/-aaaaaaaaaa_10000_20000.mp4", "test/ccccccccccc_118000_128000.mp4", "other.mp4")
    found = {row["clip_id"]: row for row in list_clips(settings)}
    assert {name: row["state"] for name, row in found.items()} == {
        "-aaaaaaaaaa_000010": "listed",
        "bbbb_bbbbbb_000030": "missing",
        "vvvvvvvvvvv_000001": "duplicate",
        "vvvvvvvvvvv_000200": "missing",
        "ccccccccccc_000118": "listed",
    }
    assert found["bbbb_bbbbbb_000030"]["label"] == "playing violin, fiddle"
    assert found["vvvvvvvvvvv_000001"]["reason"] == "its video is also in val"
    assert Path(found["ccccccccccc_000118"]["path"]).is_file()
    assert "1 of 3 clips of train are of videos in val or test: kept out of training" in capsys.readouterr().out


def test_shared_videos_can_be_left_in_training(tmp_path):
    make(tmp_path, "vvvvvvvvvvv_000001.mp4")
    states = {row["clip_id"]: row["state"] for row in list_clips(vggsound(tmp_path, exclude_shared=False))}
    assert states["vvvvvvvvvvv_000001"] == "listed"


def test_patterns_that_fit_nothing_say_what_was_looked_for(tmp_path):
    with pytest.raises(
        ValueError, match=r"data\.pattern='clip_\{start\}\.mp4': none of the 5 wanted clips.*clip_10\.mp4"
    ):
        list_clips(vggsound(tmp_path, pattern="clip_{start}.mp4"))
    with pytest.raises(ValueError, match=r"it may hold \{clip_id\}, \{youtube_id\}"):
        list_clips(vggsound(tmp_path, pattern="{id}.mp4"))


def test_a_limit_draws_from_any_folder(tmp_path):
    make(tmp_path, *(f"{label}-{number}.mp4" for label in ("dog", "cat") for number in range(6)))
    settings = params(tmp_path, val=0.0, test=0.0)
    everything = {row["clip_id"]: row for row in list_clips(settings)}
    settings.data = Data(source="folder", folder=str(tmp_path / "videos"), limit={"train": 4})
    some = list_clips(settings)
    assert all(everything[row["clip_id"]] == row for row in some)
    drawn = [row["label"] for row in some if row["split"] == "train"]
    assert sorted(drawn) == ["cat", "cat", "dog", "dog"]
