"""Other DVC experiments, read from git: which there are, how they differ, what compares, what is wrong with some."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from helpers.forks import FORKS
from typer.testing import CliRunner

from specmaskfoley.commands.main import app
from specmaskfoley.report.cached import cache_folder, cached_files
from specmaskfoley.report.experiments import Experiment, other_experiments, sweep, workspace
from specmaskfoley.report.report import Company, write_all
from specmaskfoley.report.results import Evaluation, ScoredClips, Subset, write_evaluation
from specmaskfoley.settings import Params

SETTINGS = {
    "profile": "mini",
    "seed": 0,
    "cfg": {"scale": 1.5, "mode": "multi"},
    "sample": {"steps": 12},
    "run": {"threads": 2},
    "paths": {"metrics": "metrics", "judges": "data/judges", "samples": "data/samples"},
    "profiles": {"mini": {"judges": {"kind": "mini"}}, "vggsound": {"judges": {"kind": "paper"}}},
}
EVALUATE = """
import json, os, yaml
settings = yaml.safe_load(open("params.yaml"))
steps = settings["sample"]["steps"]
os.makedirs("metrics/systems", exist_ok=True)
os.makedirs("data/samples/take-0", exist_ok=True)
open("data/samples/take-0/a.flac", "w").write(f"sound of {steps} steps")
if settings["cfg"]["scale"] > 5:
    raise SystemExit("too loud")
scores = {"fad": 10 / steps, "desync": 1 / steps}
json.dump(scores, open("metrics/scores.json", "w"))
json.dump(scores, open("metrics/systems/specmaskfoley.json", "w"))
json.dump({"specmaskfoley": {"fad": {"low": 9 / steps, "high": 12 / steps}}}, open("metrics/intervals.json", "w"))
json.dump({"clips": 10, "hash": "0" * 16, "counts": {"specmaskfoley": {"clips": 10}}}, open("metrics/clips.json", "w"))
"""
GRAPH = {
    "stages": {
        "evaluate": {
            "cmd": "python evaluate.py",
            "deps": ["evaluate.py"],
            "params": ["seed", "cfg", "sample"],
            "outs": [
                {f"metrics/{name}.json": {"cache": False}} for name in ("systems/specmaskfoley", "intervals", "clips")
            ]
            + ["data/samples"],
            "metrics": [{"metrics/scores.json": {"cache": False}}],
        }
    }
}


class Repository:
    """A small git and DVC repository whose one stage makes scores of the settings."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self) -> None:
        """Settings, a stage and its scores, in one commit."""
        root = self.root
        root.mkdir()
        (root / "params.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
        (root / "evaluate.py").write_text(EVALUATE)
        (root / "dvc.yaml").write_text(yaml.safe_dump(GRAPH))
        self.git("init", "-q", "-b", "main")
        self.dvc("init", "-q")
        self.dvc("repro", "-q")
        self.commit()

    @property
    def env(self) -> dict[str, str]:
        places = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
        identity = {
            f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self.root.parent / "site")}
        return places | identity | own

    def git(self, *command: str) -> str:
        answer = subprocess.run(["git", *command], cwd=self.root, env=self.env, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def dvc(self, *command: str) -> str:
        code, output = FORKS.run(["-m", "dvc", *command], self.root, self.env)
        assert code == 0, output
        return output

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a run")
        return self.git("rev-parse", "HEAD")

    def change(self, **sections: Any) -> None:
        """Edit params.yaml and nothing else."""
        self.write("params.yaml", yaml.safe_dump(SETTINGS | sections, sort_keys=False))

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def add_experiment(self, name: str) -> None:
        """Keep the checkout as DVC keeps a finished experiment, and go back."""
        baseline = self.git("rev-parse", "HEAD")
        revision = self.commit()
        self.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", revision)
        self.git("reset", "-q", "--hard", baseline)

    def here(self) -> Experiment:
        return workspace(self.root / "params.yaml")

    def others(self) -> tuple[list[Experiment], dict[str, str]]:
        return other_experiments(self.root, self.here())


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("committed") / "repository"
    Repository(root).make()
    return root


@pytest.fixture
def repository(committed: Path, tmp_path: Path) -> Repository:
    """A copy of one that was made once."""
    shutil.copytree(committed, tmp_path / "repository", symlinks=True)
    return Repository(tmp_path / "repository")


def experiment(settings: dict[str, object], *, scores: Any = None, clips: Any = None, judges: str = "j") -> Experiment:
    found = Evaluation(scores=scores or {"specmaskfoley": {"fad": 1.0, "desync": 0.5}}, clips=clips or ScoredClips())
    return Experiment(name="n", revision="0123456789", baseline="", settings=settings, evaluation=found, judges=judges)


# ------------------------------------------------------------------ from a repository


@pytest.mark.pipeline
def test_experiments_of_dvc_are_found_with_their_settings_and_scores(repository: Repository) -> None:
    repository.dvc("exp", "run", "-q", "-n", "four", "-S", "sample.steps=4")
    repository.dvc("exp", "run", "-q", "-n", "text", "-S", "sample.steps=12", "-S", "cfg.mode=text")
    head = repository.git("rev-parse", "HEAD")
    here = repository.here()  # the last experiment's results lie in the checkout
    assert (here.baseline, here.settings["cfg.mode"], here.judges, here.changed) == (head, "text", "mini", {})
    found, troubles = repository.others()
    assert troubles == {}
    assert [(one.name, one.baseline, one.differences(here)) for one in found] == [
        ("four", head, {"cfg.mode": "multi", "sample.steps": 4}),
        ("commit", head, {"cfg.mode": "multi"}),
    ]
    assert found[0].evaluation.scores == {"specmaskfoley": {"fad": 2.5, "desync": 0.25, "clips": 10}}
    assert found[0].evaluation.intervals["specmaskfoley"]["fad"].high == 3.0
    assert found[0].evaluation.clips.hash == "0" * 16


@pytest.mark.pipeline
def test_reading_writes_nothing(repository: Repository) -> None:
    repository.dvc("exp", "run", "-q", "-S", "sample.steps=4")

    def files() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in repository.root.rglob("*")}

    before = files()
    assert len(repository.others()[0]) == 1
    assert files() == before


@pytest.mark.pipeline
def test_a_later_commit_hides_no_experiment(repository: Repository) -> None:
    repository.dvc("exp", "run", "-q", "-n", "four", "-S", "sample.steps=4")
    repository.git("checkout", "-q", ".")
    repository.write("README.md", "later")
    repository.commit()
    found, _ = repository.others()
    assert [one.name for one in found] == ["four"]  # the two commits have this experiment's result
    assert found[0].baseline != repository.here().baseline


def test_broken_experiments_are_named(repository: Repository) -> None:
    repository.write("metrics/systems/specmaskfoley.json", "{")
    repository.add_experiment("garbled")
    (repository.root / "metrics" / "clips.json").unlink()
    repository.add_experiment("empty")
    repository.write("params.yaml", "- a\n")
    repository.add_experiment("listed")
    repository.write("metrics/clips.json", "{}")
    repository.add_experiment("without-us")
    repository.change(cfg={"scale": 3.0, "mode": "multi"})
    repository.add_experiment("stale")
    found, troubles = repository.others()
    assert found == []
    reasons = {name.split(" ")[0]: reason for name, reason in troubles.items()}
    assert reasons.pop("garbled").startswith("metrics/systems/specmaskfoley.json: not valid JSON")
    assert reasons == {
        "empty": "metrics/clips.json: no such file; dvc repro or specmaskfoley evaluate --out writes it",
        "listed": "params.yaml: holds list, expected settings by name",
        "without-us": "it has no scores of specmaskfoley",
        "stale": "its scores are of other settings (cfg.scale)",
    }


@pytest.mark.pipeline
def test_a_failed_experiment_of_the_queue_is_named(repository: Repository) -> None:
    repository.dvc("exp", "run", "-q", "--queue", "-n", "loud", "-S", "cfg.scale=9")
    repository.dvc("queue", "start", "-q")
    while "Failed" not in repository.dvc("queue", "status"):
        time.sleep(1)
    repository.dvc("queue", "stop", "-q")
    found, troubles = repository.others()
    assert found == []
    assert troubles == {"loud": "failed; dvc queue logs loud says why"}


def test_edited_settings_are_noticed(repository: Repository) -> None:
    repository.change(cfg={"scale": 3.0, "mode": "multi"}, run={"threads": 1}, later={"new": 1})
    here = repository.here()
    assert here.changed == {"cfg.scale": 3.0}  # threads change no score, and nothing was run with the new one
    assert here.settings["cfg.scale"] == 1.5
    assert here.warning == (
        "These scores are of other settings than params.yaml has: cfg.scale=1.5 (params.yaml: 3.0). "
        "For scores of params.yaml: dvc repro."
    )


def test_another_profile_is_noticed(repository: Repository) -> None:
    lock = yaml.safe_load((repository.root / "dvc.lock").read_text())
    lock["stages"]["evaluate"]["params"]["params.yaml"] |= {"profile": "mini"}
    repository.write("dvc.lock", yaml.safe_dump(lock))
    assert repository.here().warning == ""
    repository.change(profile="vggsound")
    here = repository.here()
    assert here.changed == {"profile": "vggsound"}
    assert here.judges == "mini"


@pytest.mark.pipeline
def test_the_sound_of_an_experiment_is_found_in_the_cache(repository: Repository, tmp_path: Path) -> None:
    repository.dvc("cache", "dir", "../cache")  # wherever it is
    repository.dvc("exp", "run", "-q", "-f", "-n", "four", "-S", "sample.steps=4")
    repository.git("checkout", "-q", "params.yaml", "dvc.lock", "metrics")
    found, _ = repository.others()
    assert [one.name for one in found] == ["four"]
    cache = cache_folder(repository.root)
    assert cache == tmp_path / "cache"
    sounds = cached_files(cache, found[0].samples)
    assert {name: path.read_text() for name, path in sounds.items()} == {"take-0/a.flac": "sound of 4 steps"}
    sounds["take-0/a.flac"].unlink()
    assert cached_files(cache, found[0].samples) == {}
    assert cached_files(cache, repository.here().samples) == {}  # made before the cache was moved


def test_a_folder_that_is_no_repository_has_no_other_experiments(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.raises(ValueError, match=r"metrics/clips\.json: no such file"):
        workspace(tmp_path / "params.yaml")
    write_evaluation(tmp_path / "metrics", {"specmaskfoley": {"fad": 1.0}}, {}, {"counts": {"specmaskfoley": {}}})
    here = workspace(tmp_path / "params.yaml")
    assert (here.baseline, here.judges) == ("", "mini")
    assert other_experiments(tmp_path, here) == ([], {})
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)  # without a commit
    assert other_experiments(tmp_path, workspace(tmp_path / "params.yaml")) == ([], {})


def test_the_judges_are_told_by_their_weights(repository: Repository) -> None:
    lock = yaml.safe_load((repository.root / "dvc.lock").read_text())
    lock["stages"]["judges"] = {"cmd": "x", "outs": [{"path": "data/judges", "hash": "md5", "md5": "abc"}]}
    repository.write("dvc.lock", yaml.safe_dump(lock))
    assert repository.here().judges == "abc"


# ------------------------------------------------------------------ what compares


def test_differences_name_settings_without_their_profile() -> None:
    one = experiment({"cfg.scale": 3.0, "profiles.mini.audio.fmax": 1.0, "run.threads": 1, "only.here": 1, "seed": 0})
    other = experiment({"cfg.scale": 1.5, "profiles.mini.audio.fmax": 2.0, "run.threads": 2, "seed": 0})
    assert one.differences(other) == {"audio.fmax": 1.0, "cfg.scale": 3.0}


def test_scores_compare_on_the_same_clips_by_the_same_judges() -> None:
    clips = ScoredClips(clips=2, hash="a", duration_s=5.0)
    one = experiment({}, clips=clips)
    assert one.incomparable(experiment({}, clips=clips)) == ""
    assert one.incomparable(experiment({}, clips=clips, judges="k")) == "other judges"
    for change in ({"hash": "b"}, {"duration_s": 8.0}):
        assert one.incomparable(experiment({}, clips=clips.model_copy(update=change))) == "other clips"


def test_a_sweep_holds_what_differs_in_one_setting() -> None:
    def at(steps: int, mode: str = "multi", **more: Any) -> Experiment:
        return experiment({"sample.steps": steps, "cfg.mode": mode}, **more)

    found = sweep([at(12), at(16), at(4), at(8, "text"), at(6, judges="k"), at(4)], "sample.steps")
    assert [one.settings["sample.steps"] for one in found] == [4, 12, 16]
    alone = sweep([at(12, "audio"), at(16), at(4), at(8, "text")], "sample.steps")
    assert [one.settings["sample.steps"] for one in alone] == [4, 16]
    assert sweep([], "sample.steps") == []
    lists = experiment({"sample.steps": [20, 10, 10, 10], "cfg.mode": "multi"})
    assert [one.settings["sample.steps"] for one in sweep([lists, at(16), at(4)], "sample.steps")] == [4, 16]


# ------------------------------------------------------------------ the report of them


def project(root: Path) -> Path:
    """A checkout with the scores that this repository keeps in git, and no data."""
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    scores = {name: {"fad": 1.0, "desync": 0.4} for name in ("ground_truth", "specmaskfoley", "backbone_text")}
    clips = {"clips": 5, "counts": {name: {"clips": 5} for name in scores}}
    write_evaluation(root / "metrics", scores, {}, clips)
    return root / "params.yaml"


def test_settings_that_a_profile_has_no_use_for_are_not_shown(tmp_path: Path) -> None:
    for profile, shown, hidden in (("mini", "sample.gumbel_temperature", "sample.top_p"),
                                   ("mini_1d", "sample.top_p", "sample.gumbel_temperature")):  # fmt: skip
        file = project(tmp_path / profile)
        file.write_text(file.read_text().replace("profile: mini ", f"profile: {profile} "))
        result = CliRunner().invoke(app, ["report", "--params", str(file), "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        page = (tmp_path / "out" / "report.html").read_text()
        facts = page[: page.index("<table")]
        assert shown in facts
        assert hidden not in facts


def test_the_command_writes_page_table_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["report", "--params", str(file), "--out", "there", "--experiments", "none"])
    assert result.exit_code == 0, result.output
    assert result.output == f"report: {tmp_path / 'there' / 'report.html'}\n"
    assert sorted(path.name for path in (tmp_path / "there" / "figures").iterdir()) == [
        "fad_desync.png",
        "fad_desync_published.png",
    ]
    text = (tmp_path / "there" / "table.md").read_text()
    assert "### Published on VGGSound" in text
    assert "### Experiments" not in text
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkout" / "metrics" / "clips.json").unlink()
    failed = CliRunner().invoke(app, ["report", "--params", str(file)])
    assert failed.exit_code == 2
    assert "error: metrics/clips.json: no such file; dvc repro" in failed.output


def test_changed_settings_are_told_on_the_page_in_the_table_and_in_the_terminal(repository: Repository) -> None:
    """The settings shown are those of the scores."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    lock = yaml.safe_load((repository.root / "dvc.lock").read_text())
    lock["stages"]["evaluate"]["params"]["params.yaml"] = {
        "sample": settings["sample"] | {"steps": 6},
        "profiles.mini.sample": settings["profiles"]["mini"]["sample"],
    }
    repository.write("dvc.lock", yaml.safe_dump(lock))
    repository.write("params.yaml", (ROOT / "params.yaml").read_text())
    arguments = ["report", "--params", str(repository.root / "params.yaml"), "--out", str(repository.root / "there")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = "These scores are of other settings than params.yaml has: sample.steps=6 (params.yaml: 12)."
    assert result.stderr.startswith(f"warning: {told}")
    page = (repository.root / "there" / "report.html").read_text()
    assert f'<p class="warning" role="alert">{told}' in page
    assert "<dt>sample.steps</dt><dd>6</dd>" in page
    assert (repository.root / "there" / "table.md").read_text().startswith(f"> **Warning:** {told}")


def test_sound_that_the_cache_lacks_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params.load(project(tmp_path))
    monkeypatch.chdir(tmp_path)
    this = replace(experiment({"sample.steps": 12}), samples="00aa.dir")
    others = [
        replace(experiment({"sample.steps": steps}), name=f"n{steps}", samples=samples)
        for steps, samples in ((4, "11bb.dir"), (8, "22cc.dir"), (12, "00aa.dir"))
    ]
    company = Company(this=this, experiments=others, cache=tmp_path / "cache")
    page = write_all(params, tmp_path / "out", this.evaluation, company).read_text()
    assert "DVC&#39;s cache has no sounds of n4 0123456, n8 0123456; dvc exp pull fetches them" in page


def test_the_stage_shows_this_experiment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(tmp_path)
    write_evaluation(tmp_path / "metrics" / "others" / "x", {"apart": {"fad": 3.0}}, {}, {"counts": {"apart": {}}})
    monkeypatch.chdir(tmp_path)
    evaluation = workspace(file).evaluation
    pages = []
    for _ in range(2):
        page = write_all(Params.load(file), Path("metrics"), evaluation)
        pages.append((page.read_bytes(), (tmp_path / "metrics" / "table.md").read_bytes()))
    assert pages[0] == pages[1]
    text = (tmp_path / "metrics" / "table.md").read_text()
    assert "apart" not in text
    named = "workspace, cfg.scale=1.5, cfg.start=0.34, sample.gumbel_temperature=4.5, mini judges"
    assert text.count(f"| *measured here (profile mini)*<br><sub>{named}</sub> |") == 2
    assert "Scores by mini judges do not compare with published ones" in text


def test_other_systems_join_the_table_on_the_same_terms_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params.load(project(tmp_path))
    monkeypatch.chdir(tmp_path)
    clips = ScoredClips(clips=5, hash="a", duration_s=5.0, profile="mini", judges="mini")
    evaluation = Evaluation(scores={"specmaskfoley": {"fad": 1.0, "desync": 0.4}}, clips=clips)
    bells = Subset(clips=3, hash="b", scores={"SpecMaskFoley": {"fad": 2.5}, "ground_truth": {"fad": 0.0}})
    changes = {
        "same": {},
        "longer": {"duration_s": 8.0, "by": "kind", "subsets": {"bells": bells}},
        "official": {"profile": "vggsound", "judges": "paper"},
        "published": {"as_published": True},
    }
    theirs = {"SpecMaskFoley": {"fad": 2.0}, "ground_truth": {"fad": 0.0}}
    systems = {
        name: Evaluation(scores=theirs, clips=clips.model_copy(update=change)) for name, change in changes.items()
    }
    write_all(params, tmp_path / "out", evaluation, Company(systems=systems))
    parts = (tmp_path / "out" / "table.md").read_text().split("### ")[1:]
    assert [part.splitlines()[0] for part in parts] == [
        "Scores",
        *(f"Other systems: {name}" for name in ("longer", "official", "published")),
        "Published on VGGSound",
        "Published on VGGSound by HunyuanVideo-Foley",
        "Published: backbone, steps and guidance",
    ]
    assert "| SpecMaskFoley | **1.00** |" in parts[0]
    assert "| SpecMaskFoley (same) | 2.00 |" in parts[0]
    assert "ground truth" not in parts[0]  # the same sounds as this experiment's, which states them itself or not
    page = (tmp_path / "out" / "report.html").read_text()
    assert "longer: SpecMaskFoley, by kind" in page
    assert "longer: ground truth, by kind" in page
    for part, why in zip(
        parts[1:4], ("on other clips", "by the judges of profile vggsound", "as av-benchmark"), strict=True
    ):
        assert f"Scores {why}" in part


def test_experiments_by_other_judges_do_not_compete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params.load(project(tmp_path))
    monkeypatch.chdir(tmp_path)
    this = experiment({"sample.steps": 12, "seed": 0})
    others = [
        experiment(
            {"sample.steps": steps, "seed": seed}, scores={"specmaskfoley": {"fad": fad, "desync": 0.3}}, judges=judges
        )
        for steps, seed, fad, judges in ((16, 0, 0.9, "j"), (4, 0, 2.0, "j"), (12, 1, 0.1, "k"))
    ]
    company = Company(this=this, experiments=others, without={"loud": "failed"})
    page = write_all(params, tmp_path / "out", this.evaluation, company)
    text = (tmp_path / "out" / "table.md").read_text()
    rows = [line.split(" | ")[:2] for line in text.split("### Experiments")[1].splitlines() if line.startswith("| ")]
    assert rows[2:6] == [
        ["| this experiment", "<u>1.00</u>"],
        ["| sample.steps=4<br><sub>n 0123456</sub>", "2.00"],
        ["| sample.steps=16<br><sub>n 0123456</sub>", "**0.90**"],
        ["| *seed=1*<br><sub>n 0123456, other judges</sub>", "0.10"],
    ]
    assert "Experiments without scores: 1, named in the page." in text
    assert (tmp_path / "out" / "figures" / "steps.png").exists()
    assert "in experiments that differ in nothing else" in page.read_text()
    write_all(params, tmp_path / "out", this.evaluation, Company(this=this))
    assert not (tmp_path / "out" / "figures" / "steps.png").exists()  # it has nothing to show any more
