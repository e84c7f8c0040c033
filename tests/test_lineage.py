"""What runs again after an edit: each row of the table in docs/development.md, on a copy of the code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from helpers.tiny import Project

from specmaskfoley import lineage
from specmaskfoley.settings import Params

TRAININGS = ("codec", "backbone", "control", "encoders", "judges")


class Copy:
    """The code in a directory of its own, analysed as if it were the project's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "dvc.yaml", root)
        self.params = Params.load(ROOT / "params.yaml")
        self.before = unchanged(self)

    def codes(self) -> dict[str, dict[str, str]]:
        forget()
        return {stage: lineage.stage_code(stage, self.params) for stage in lineage.stages()}

    def edit(self, file: str, old: str, new: str) -> set[str]:
        """Stages whose code is another after the edit."""
        path = self.root / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{file} does not hold {old!r}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        after = self.codes()
        return {stage for stage in after if after[stage] != self.before[stage]}


def forget() -> None:
    """What the analysis remembers of files that have changed."""
    for cached in (lineage._find, lineage._module, lineage._read, lineage._settings_members):
        cached.cache_clear()


_UNCHANGED: list[dict[str, dict[str, str]]] = []


def unchanged(copy: Copy) -> dict[str, dict[str, str]]:
    if not _UNCHANGED:
        _UNCHANGED.append(copy.codes())
    return _UNCHANGED[0]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copy]:
    monkeypatch.setattr(lineage, "_ROOT", tmp_path)
    yield Copy(tmp_path)
    monkeypatch.undo()
    forget()


def test_better_words_run_nothing_again(copy):
    """Docstrings, comments, layout, annotations and what is printed, in every file at once."""
    for file in [*copy.root.rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        text = re.sub(r'\A"""', '"""Better words: ', text)
        text = re.sub(r'^(    """)(?=\w)', r"\1Better words: ", text, flags=re.MULTILINE)
        text = re.sub(r"^( *)(def .*:)$", r"\1# a comment\n\1\2", text, flags=re.MULTILINE)
        text = re.sub(r"^( *)print\((?=f?\")", r"\1print('better', ", text, flags=re.MULTILINE)
        file.write_text(text + "\n\n\n", encoding="utf-8")
    assert copy.codes() == copy.before


def test_a_log_message_does_not_touch_a_training(copy):
    assert copy.edit("src/specmaskfoley/tracking.py", "failed, the stage goes on without it", "is not there") == set()


def test_how_threads_wait_does_not_touch_a_training(copy):
    assert copy.edit("src/specmaskfoley/__init__.py", "PASSIVE", "ACTIVE") == set()


def test_a_feature_formula(copy):
    assert copy.edit(
        "src/specmaskfoley/extraction/features.py", "semantic.float().mean(1)", "semantic.float().amax(1)"
    ) == {"features"}


def test_a_vocoder_that_the_profile_does_not_use(copy):
    assert copy.edit("src/specmaskfoley/vocoders/hifigan.py", "class HiFiGAN", "X = 1\n\n\nclass HiFiGAN") == set()
    assert copy.edit("src/specmaskfoley/vocoders/hifigan.py", "super().__init__()", "super().__init__(), 1") == set()
    changed = copy.edit("src/specmaskfoley/vocoders/griffin_lim.py", "super().__init__()", "super().__init__(), 1")
    assert changed == {"sample"}


def test_another_vocoder_in_the_table(copy):
    """A new line in a registry is no change for those who do not choose it."""
    line = '    "hifigan": "specmaskfoley.vocoders.hifigan:HiFiGAN",\n'
    assert copy.edit("src/specmaskfoley/vocoders/trained.py", line, line + line.replace("hifi", "lofi")) == set()


def test_the_control_network(copy):
    changed = copy.edit(
        "src/specmaskfoley/control/network.py", "class ControlBranch(", "A = 2\n\n\nclass ControlBranch("
    )
    assert changed == set(), "a constant that nobody uses"
    assert copy.edit("src/specmaskfoley/control/network.py", "super().__init__()", "super().__init__(), 1") == {
        "control",
        "sample",
    }


def test_a_metric(copy):
    files = [path for path in (copy.root / "src/specmaskfoley/metrics").glob("[a-z]*.py") if path.stem != "judged"]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "np.asarray(" in text, path.name
        path.write_text(text.replace("np.asarray(", "0 + np.asarray("), encoding="utf-8")
    after = copy.codes()
    assert {stage for stage in after if after[stage] != copy.before[stage]} == {"evaluate", "report"}
    for path in files:
        name = str(path.relative_to(copy.root))
        assert after["evaluate"][name] != copy.before["evaluate"][name]


def test_a_property_of_the_settings_counts_where_it_is_read(copy):
    changed = copy.edit("src/specmaskfoley/settings/media.py", "* self.patch", "* self.patch * 1")
    assert {"features", "tokens", "sample"} <= changed
    assert "fetch_weights" not in changed


def test_a_check_of_a_setting_runs_nothing_again(copy):
    assert (
        copy.edit("src/specmaskfoley/settings/media.py", "if self.fmin >= self.fmax", "if self.fmin > self.fmax")
        == set()
    )


def test_a_name_means_what_it_means_in_its_scope(copy):
    """A variable of a comprehension hides a function of that name there and nowhere else."""
    module = copy.root / "src/specmaskfoley/vocoders/griffin_lim.py"
    text = module.read_text(encoding="utf-8").replace("super().__init__()", "super().__init__(), scale(3)")
    module.write_text(text + '''

def scale(x):
    twice = [scale for scale in (x, double(x))]
    return [double for double in twice][0] + (lambda other: other)(x)


def double(x):
    return 2 * x


def other(x):
    return 3 * x
''', encoding="utf-8")  # fmt: skip
    copy.before = copy.codes()
    file = "src/specmaskfoley/vocoders/griffin_lim.py"
    assert copy.edit(file, "return 3 * x", "return 4 * x") == set()
    assert copy.edit(file, "return 2 * x", "return 5 * x") == {"sample"}


def test_a_new_setting_runs_nothing_again(copy):
    section = "class Decoding(Settings):"
    text = (copy.root / "src/specmaskfoley/settings/sampling.py").read_text(encoding="utf-8")
    first = re.search(r"    steps: Steps\n", text)
    assert first
    assert section in text
    assert copy.edit("src/specmaskfoley/settings/sampling.py", first[0], f"{first[0]}    brand_new: int = 3\n") == set()


def test_a_file_beside_a_module_counts(copy):
    module = copy.root / "src/specmaskfoley/vocoders/griffin_lim.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace("class GriffinLim", 'PAGE = "page.css"\n\n\nclass GriffinLim', 1), encoding="utf-8")
    module.write_text(module.read_text(encoding="utf-8").replace("super().__init__()", "super().__init__(), PAGE"))
    style = module.with_name("page.css")
    style.write_text("a {}")
    copy.before = copy.codes()
    style.write_text("b {}")
    after = copy.codes()
    assert {stage for stage in after if after[stage] != copy.before[stage]} == {"sample"}


def test_keys_follow_code_settings_and_inputs(copy, tmp_path):
    def key(code: Callable[..., object] = Params.load, settings: object = None) -> str:
        return lineage.kept_key([code], settings, copy.params, [tmp_path / "in"])

    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = key(settings={"x": 1, "y": 2})
    assert len(first) == 16
    assert key(settings={"y": 2, "x": 1}) == first
    assert key(settings={"y": 3, "x": 1}) != first
    assert key(settings=copy.params.audio) != key(settings=copy.params.video)
    (folder / "a").write_text("2")
    assert key(settings={"x": 1, "y": 2}) != first
    (folder / "a").write_text("1")
    (folder / "a").rename(folder / "b")
    assert key(settings={"x": 1, "y": 2}) != first
    with pytest.raises(ValueError, match="absent"):
        lineage.kept_key([], None, copy.params, [tmp_path / "absent"])


@pytest.mark.parametrize("stage", TRAININGS)
def test_an_unfinished_training_goes_on_with_other_machines_and_other_looks(stage, copy, monkeypatch):
    monkeypatch.setattr(lineage, "_digest", lambda code, settings, inputs: repr(settings))

    def key(change: Callable[[dict], object]) -> str:
        raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        change(raw)
        return lineage.stage_key(stage, Params.from_mapping(raw))

    first = key(lambda raw: None)
    assert key(lambda raw: raw["run"].update(device="cuda", threads=7, workers=3, compile="never")) == first
    assert key(lambda raw: raw["run"].update(precision="bfloat16")) != first
    assert key(lambda raw: raw.update(seed=1)) != first
    training = {"codec": "train_codec", "backbone": "train_backbone", "control": "train_control"}.get(stage)
    if training:
        assert key(lambda raw: raw["profiles"]["mini"][training]["optim"].update(checkpoint_every=7)) == first
        assert key(lambda raw: raw["profiles"]["mini"][training]["optim"].update(steps=4000)) != first
    elif stage == "encoders":
        assert key(lambda raw: raw["profiles"]["mini"]["encoders"]["train_sync"].update(validate_every=7)) == first


NOT_BY_MINI = {
    "lineage": ("data", "run", "encoders", "codec", "backbone", "vocoder", "judges"),  # unwatched
    "clips": ("data", "fetch", "prepare"),  # by the other sources
    "control": ("video",),  # by control.alignment time
    "audio": ("codec", "run.device", "run.threads"),  # where data.audio names folders
}
"""Listed settings that the tiny world has no use for, by stage."""


def test_a_stage_reads_the_settings_that_dvc_lists(project: Project):
    """Both ways: nothing read that is not listed, nothing listed that is not read."""
    wrong = {}
    for stage, (listed, touched, unlisted) in settings_by_stage(project).items():
        unread = {entry for entry in listed if not any(within(name, entry) or within(entry, name) for name in touched)}
        unread -= {entry for entry in unread if any(within(entry, name) for name in NOT_BY_MINI.get(stage, ()))}
        if unlisted or unread:
            wrong[stage] = {"read, not listed": sorted(unlisted), "listed, not read": sorted(unread)}
    assert wrong == {}


@pytest.mark.pipeline
def test_a_stage_reads_no_other_settings_in_one_dimension(reproduced_1d: Project):
    assert {stage: unlisted for stage, (_, _, unlisted) in settings_by_stage(reproduced_1d).items() if unlisted} == {}


def settings_by_stage(project: Project) -> dict[str, tuple[set[str], set[str], set[str]]]:
    """Of each stage the settings that dvc.yaml lists, those that it read, and what of these is not listed."""
    read: dict[str, set[str]] = {}
    for line in project.touched.read_text(encoding="utf-8").splitlines():
        stage, setting = line.split(" ", 1)
        read.setdefault(stage, set()).add(setting)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert read.keys() <= stages.keys()
    made = {}
    for stage, found in stages.items():
        listed = {name.removeprefix("profiles.${profile}.") for name in found.get("params", ())}
        touched = {name for name in read.get(stage, ()) if not name.startswith("paths.")} - lineage.HARMLESS
        made[stage] = listed, touched, {name for name in touched if not any(within(name, one) for one in listed)}
    return made


def within(name: str, section: str) -> bool:
    return name == section or name.startswith(f"{section}.")
