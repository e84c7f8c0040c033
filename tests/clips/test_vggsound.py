"""VGGSound's lists: read, fetched, and what is wanted of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from helpers.web_server import Answer, Web
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.clips import vggsound
from specmaskfoley.clips.vggsound import (
    BLOBS,
    VggSoundClip,
    blob_id,
    draw,
    list_row,
    load_lists,
    parse_list,
    shared_videos,
    wanted,
)
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import LISTED, SPLITS
from specmaskfoley.weights.download import Transfer

REAL = ROOT.parent / "shared" / "splits"
HEADER = "id\tlabel\n"

youtube_ids = st.text("abXY09_-", min_size=11, max_size=11)
clip_ids = st.builds(lambda name, second: f"{name}_{second:06d}", youtube_ids, st.integers(0, 999_999))
odd = st.sampled_from([",", '"', "'", "\f", "\u2028", "\u2029", "\x85", "\x1c", "\v", " ", "é", "\ufeff", "_", "#"])
labels = st.lists(odd | st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1).map("".join)
labels = labels.map(str.strip).filter(bool)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A function that makes settings with some changes of `data` and of `fetch`."""
    monkeypatch.chdir(tmp_path)

    def make(data=None, **fetch):
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["data"] |= {"source": "archive", "lists": "lists", **(data or {})}
        params["fetch"] |= {"retries": 0, "timeout_s": 5.0, **fetch}
        return Params.from_mapping(params)

    return make


@pytest.fixture
def lists(tmp_path):
    """A function that writes the three lists, of (id, label) pairs."""

    def write(train=(), val=(), test=()):
        for split, rows in {"train": train, "val": val, "test": test}.items():
            path = tmp_path / "lists" / f"{split}.tsv"
            path.parent.mkdir(exist_ok=True)
            path.write_text(HEADER + "".join(f"{name}\t{label}\n" for name, label in rows), encoding="utf-8")
        return tmp_path / "lists"

    return write


@pytest.fixture
def web(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    made = Web(b"")
    yield made
    made.server.shutdown()
    made.server.server_close()


def name(number, second=0):
    return f"video{number:06d}_{second:06d}"


# One list


@given(
    st.lists(st.tuples(clip_ids, labels), max_size=20), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans()
)
def test_every_label_survives(rows, end, bom, last_end):
    text = "\ufeff" * bom + end.join(["id\tlabel", *(f"{clip}\t{label}" for clip, label in rows)]) + end * last_end
    first = {}
    for clip, label in rows:
        first.setdefault(clip, label)
    found = parse_list(text, split="val", where="val.tsv")
    assert [(clip.clip_id, clip.label, clip.split) for clip in found] == [(*row, "val") for row in first.items()]


@given(st.lists(st.tuples(clip_ids, labels), max_size=5), st.integers(0, 5), st.data())
def test_a_wrong_line_names_its_number(rows, place, data):
    wrong = data.draw(
        st.sampled_from(
            [
                "abcdefghijk_000001",  # no label
                "abcdefghijk_000001\tdog\tval",
                "abcdefghijk_000001\t ",
                "abcdefghijk\tdog",
                "abcdefghijk_00001\tdog",
                "abcdefghijk_0000001\tdog",
                "abcdefghij_000001\tdog",
                "abcdefghijk-000001\tdog",
                "../../../ab_000001\tdog",
                "abcdefghijk_00000\u0661\tdog",  # a digit, but not one of ours
                "\tdog",
            ]
        )
    )
    lines = ["id\tlabel", *(f"{clip}\t{label}" for clip, label in rows)]
    place = min(place, len(rows)) + 1
    with pytest.raises(ValueError, match=rf"^some/list\.tsv:{place + 1}: "):
        parse_list("\n".join([*lines[:place], wrong, *lines[place:]]), split="val", where="some/list.tsv")


@pytest.mark.parametrize(
    "text", ["", "\n", "id,label\n", "label\tid\n", "id\tlabel\tsplit\n", "---g-f_I2yQ,1,dog,test\n"]
)
def test_a_wrong_first_line(text):
    with pytest.raises(ValueError, match=r"^list:1: expected "):
        parse_list(text, split="val", where="list")


def test_a_list_needs_no_header():
    line = "---g-f_I2yQ_000001\tpigeon, dove cooing\n"
    assert parse_list(line, split="val", where="list") == parse_list(f"{HEADER}{line}", split="val", where="list")


def test_empty_lines_are_passed_over_and_counted():
    text = f"{HEADER}\n---g-f_I2yQ_000001\tpigeon, dove cooing\n\nwrong\n"
    with pytest.raises(ValueError, match="list:5"):
        parse_list(text, split="val", where="list")
    (clip,) = parse_list(text.replace("wrong\n", ""), split="val", where="list")
    assert clip == VggSoundClip("---g-f_I2yQ", 1, "pigeon, dove cooing", "val")
    assert (clip.clip_id, clip.end_s) == ("---g-f_I2yQ_000001", 11)


# A draw of many

items = st.lists(st.tuples(st.integers(0, 500), st.sampled_from("abcde")), unique_by=lambda item: item[0], max_size=60)


def key(item):
    return str(item[0]), item[1]


@given(items, st.none() | st.integers(1, 70), st.integers(0, 9))
def test_a_draw_is_part_of_the_items_in_their_order(items, limit, seed):
    drawn = draw(items, limit, seed, key)
    assert drawn == [item for item in items if item in set(drawn)]
    assert len(drawn) == (len(items) if limit is None else min(limit, len(items)))
    assert drawn == draw(items, limit, seed, key)


@given(items, st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_a_smaller_draw_is_part_of_a_larger(items, one, other, seed):
    small, large = (set(draw(items, limit, seed, key)) for limit in sorted((one, other)))
    assert small <= large


@given(items, st.integers(1, 70), st.integers(0, 9))
def test_a_draw_is_balanced(items, limit, seed):
    drawn, there = (Counter(label for _, label in some) for some in (draw(items, limit, seed, key), items))
    most = max(drawn.values(), default=0)
    for label, count in there.items():
        assert drawn[label] >= min(count, most - 1)


@given(items, st.integers(1, 70), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_draw_is_of_the_set_not_its_order(items, limit, seed, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    assert set(draw(shuffled, limit, seed, key)) == set(draw(items, limit, seed, key))


def test_another_seed_gives_another_draw():
    many = [(number, "abcde"[number % 5]) for number in range(200)]
    draws = {tuple(draw(many, 50, seed, key)) for seed in range(10)}
    assert len(draws) == 10


# All lists


def test_videos_of_val_and_test_are_kept_out_of_training(settings, lists, capsys):
    lists(
        train=[(name(1), "dog"), (name(2, 30), "dog"), (name(3, 40), "cat"), (name(4), "cat")],
        val=[(name(2), "dog"), (name(5), "dog")],
        test=[(name(3), "cat"), (name(5, 20), "dog")],
    )
    found = {item.clip.clip_id: (item.clip.split, item.state, item.reason) for item in wanted(settings())}
    assert found == {
        name(1): ("train", LISTED, ""),
        name(2, 30): ("train", "duplicate", "its video is also in val"),
        name(3, 40): ("train", "duplicate", "its video is also in test"),
        name(4): ("train", LISTED, ""),
        name(2): ("val", LISTED, ""),
        name(5): ("val", LISTED, ""),
        name(3): ("test", LISTED, ""),
        name(5, 20): ("test", LISTED, ""),
    }
    assert "2 of 4 clips of train are of videos in val or test: kept out of training" in capsys.readouterr().out


def test_shared_videos_may_be_left_in(settings, lists, capsys):
    lists(train=[(name(1), "dog"), (name(2, 30), "dog")], val=[(name(2), "dog")])
    found = wanted(settings({"exclude_shared": False}))
    assert [(item.clip.clip_id, item.state) for item in found] == [
        (name(1), LISTED),
        (name(2, 30), LISTED),
        (name(2), LISTED),
    ]
    assert "1 of 2 clips of train are of videos in val or test: left in training" in capsys.readouterr().out


def test_of_val_and_test_the_test_split_is_named():
    clips = {split: [VggSoundClip("abcdefghijk", 0, "dog", split)] for split in SPLITS}
    assert shared_videos(clips) == {"abcdefghijk": "test"}
    assert shared_videos({"train": clips["train"]}) == {}


def test_a_limit_passes_over_duplicates(settings, lists):
    shared = [(name(number), "dog") for number in range(20)]
    free = [(name(number), "dog") for number in range(20, 30)]
    lists(train=shared + free, val=shared)
    found = wanted(settings({"limit": {"train": 5, "val": 3, "test": None}}))
    assert Counter((item.clip.split, item.state) for item in found) == {("train", LISTED): 5, ("val", LISTED): 3}
    assert {item.clip.clip_id for item in found if item.clip.split == "train"} <= {clip for clip, _ in free}


def test_a_limit_for_each_split(settings, lists):
    many = {split: [(name(100 * n + i), "dog") for i in range(9)] for n, split in enumerate(SPLITS)}
    lists(**many)
    found = Counter(item.clip.split for item in wanted(settings({"limit": {"train": 7, "val": None, "test": 2}})))
    assert found == {"train": 7, "val": 9, "test": 2}
    assert Counter(item.clip.split for item in wanted(settings({"limit": 4}))) == dict.fromkeys(SPLITS, 4)


def test_the_limit_draws_from_what_can_be_had(settings, lists):
    lists(train=[(name(number), "dog") for number in range(50)], test=[(name(99), "cat")])
    universe = {name(number) for number in range(40, 50)} | {"other_-----_000000"}
    found = wanted(settings({"limit": 6}), universe)
    assert len(found) == 6
    assert {item.clip.clip_id for item in found} <= universe
    with pytest.raises(ValueError, match=r"data\.lists='lists': no clip is wanted"):
        wanted(settings(), set())


def test_a_missing_list_names_the_setting(settings, lists):
    (lists(train=[(name(1), "dog")]) / "val.tsv").unlink()
    with pytest.raises(ValueError, match=r"data\.lists='lists': lists/val\.tsv cannot be read; give mmaudio, or"):
        load_lists(settings())


def test_wrong_lists_name_the_line(settings, lists):
    folder = lists(train=[(name(1), "dog")])
    (folder / "test.tsv").write_text(f"{HEADER}{name(1)}\tdog\nnonsense\tdog\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^lists/test\.tsv:3: 'nonsense' is not a YouTube id"):
        load_lists(settings())
    (folder / "test.tsv").write_bytes(b"id\tlabel\n" + name(1).encode() + b"\td\xffg\n")
    with pytest.raises(ValueError, match=r"^lists/test\.tsv: not UTF-8 text \(.* at byte 29\)"):
        load_lists(settings())


def test_what_the_lists_say_comes_before_what_the_source_says():
    clip = VggSoundClip("abcdefghijk", 7, "dog", "train")
    out = vggsound.Wanted(clip, "duplicate", "its video is also in test")
    row = list_row(out, Path("x.mp4"), "archive", state="removed", reason="gone", tried_at="now", tries=3)
    assert (row["state"], row["reason"], row["tried_at"], row["tries"]) == ("duplicate", out.reason, None, None)


# MMAudio's own lists


@pytest.fixture
def published(web, monkeypatch):
    """Lists on a server of ours, as MMAudio's are on theirs."""
    texts = {split: f"{HEADER}{name(number)}\tdog, {split}\n".encode() for number, split in enumerate(SPLITS)}
    web.files = {f"/{vggsound.COMMIT}/{split}.tsv": text for split, text in texts.items()}
    monkeypatch.setattr(vggsound, "LISTS_URL", web.url("{commit}/{split}.tsv"))
    monkeypatch.setattr(vggsound, "BLOBS", {split: blob_id(text) for split, text in texts.items()})
    return web


def test_mmaudios_lists_are_fetched_once(settings, published, tmp_path):
    params = settings({"lists": "mmaudio"})
    first = load_lists(params)
    assert {split: [clip.label for clip in clips] for split, clips in first.items()} == {
        split: [f"dog, {split}"] for split in SPLITS
    }
    assert sorted(path for path, _ in published.requests) == sorted(published.files)
    assert load_lists(params) == first
    assert len(published.requests) == 3
    folder = tmp_path / "vggsound" / "lists" / vggsound.COMMIT[:7]
    assert sorted(path.name for path in folder.iterdir()) == ["test.tsv", "train.tsv", "val.tsv"]
    (folder / "val.tsv").write_text("changed by hand")
    assert load_lists(params) == first
    assert len(published.requests) == 4


def test_another_content_is_an_error_and_leaves_nothing(settings, published, tmp_path):
    page = b"<html>Please sign in</html>"
    published.usual = Answer(body=page)
    hashes = f"expected the content with git hash {vggsound.BLOBS['train']}, found {blob_id(page)}"
    with pytest.raises(ValueError, match=f"^{published.url(f'{vggsound.COMMIT}/train.tsv')}: {hashes}"):
        load_lists(settings({"lists": "mmaudio"}))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    published.usual = Answer()
    assert len(load_lists(settings({"lists": "mmaudio"}))["train"]) == 1


def test_without_a_network_the_lists_are_one_line(settings, monkeypatch, capsys):
    monkeypatch.setattr(vggsound, "LISTS_URL", "http://127.0.0.1:9/{commit}/{split}.tsv")
    monkeypatch.setattr(vggsound, "transfer_of", lambda fetch: Transfer(backoff_s=0.0))
    with pytest.raises(
        ValueError, match=r"^data\.lists='mmaudio': 127\.0\.0\.1:9 cannot be reached .*fetch\.proxy"
    ) as caught:
        load_lists(settings({"lists": "mmaudio"}))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err.count("list of train: Failed to establish") == 2


def test_git_agrees_on_hashes():
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"MMAudio's lists are not in {REAL}")
def test_the_real_lists():
    found = {}
    for split in ("val", "test"):
        content = (REAL / f"vgg-{split}.tsv").read_bytes()
        assert blob_id(content) == BLOBS[split]
        found[split] = parse_list(content.decode(), split=split, where=split)
    assert {split: len(clips) for split, clips in found.items()} == {"val": 2048, "test": 15221}
    assert {split: len({clip.label for clip in clips}) for split, clips in found.items()} == {"val": 300, "test": 309}
    assert {clip.clip_id for clip in found["val"]}.isdisjoint(clip.clip_id for clip in found["test"])
    drawn = draw(found["test"], 618, 0, lambda clip: (clip.clip_id, clip.label))
    assert set(Counter(clip.label for clip in drawn).values()) == {2}
