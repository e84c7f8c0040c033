"""Other DVC experiments of this repository, read from git: nothing is written, locked or checked out.

A finished experiment is a commit under refs/exps/<first 2 digits of its baseline>/<the others>/<name>, and all that is
compared is in git: params.yaml, dvc.lock and metrics/*.json. `dvc exp show --json` has no intervals, shows a failed
experiment with its baseline's scores, keeps a cache, and took 17 s in a repository of 38 commits.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from specmaskfoley.report.results import Evaluation, read_evaluation
from specmaskfoley.settings.params import IRRELEVANT, in_force
from specmaskfoley.settings.reading import parse_yaml
from specmaskfoley.systems import OURS
from specmaskfoley.tracking import flatten

PARAMS = "params.yaml"
_EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")
_FAILED = re.compile(r"dvc-exp:[0-9a-f]+:[0-9a-f]+:(.+)")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Settings and scores of one run of the pipeline.

    Attributes:
        name: DVC's name, "commit", or "workspace".
        revision: its commit; empty for the workspace.
        baseline: the commit that it started from.
        settings: dotted name -> value that the scores are of, without the profiles that were not active.
        judges: identifies the judge networks; scores by different judges are not comparable.
        changed: settings that were changed after the last run, with the values that params.yaml has.
        samples: what DVC's cache has the sounds under; empty if dvc.lock does not name them.
    """

    name: str
    revision: str
    baseline: str
    settings: Mapping[str, object]
    evaluation: Evaluation
    judges: str
    changed: Mapping[str, object] = field(default_factory=dict)
    samples: str = ""

    @property
    def warning(self) -> str:
        """That the scores are not those of params.yaml, and what they are of; empty if nothing was changed."""
        if not self.changed:
            return ""
        values = [f"{_bare(name)}={self.settings[name]} (params.yaml: {now})" for name, now in self.changed.items()]
        return (
            f"These scores are of other settings than params.yaml has: {', '.join(values)}. "
            "For scores of params.yaml: dvc repro."
        )

    def differences(self, other: Experiment) -> dict[str, object]:
        """Settings of both that differ, with this one's values; settings of a profile are named without it."""
        mine, theirs = self.settings, other.settings
        found = {
            _bare(name): value
            for name, value in mine.items()
            if name in theirs and theirs[name] != value and not name.startswith(IRRELEVANT)
        }
        return dict(sorted(found.items()))

    def same_result(self, other: Experiment) -> bool:
        return self.evaluation.scores == other.evaluation.scores and not self.differences(other)

    def incomparable(self, other: Experiment) -> str:
        """Why scores of the two do not compare; empty if they do."""
        if self.judges != other.judges:
            return "other judges"
        mine, theirs = self.evaluation.clips, other.evaluation.clips
        return "" if (mine.hash, mine.duration_s) == (theirs.hash, theirs.duration_s) else "other clips"


def workspace(params_file: Path) -> Experiment:
    """The experiment in the checkout; its baseline is HEAD, if there is one.

    Raises:
        ValueError: params.yaml or a file of the evaluation is missing, or a file cannot be read as what it should be.
    """
    root = params_file.parent
    return _read("workspace", "", _head(root), lambda name: _text(params_file if name == PARAMS else root / name))


def other_experiments(root: Path, this: Experiment) -> tuple[list[Experiment], dict[str, str]]:
    """Finished experiments, newest first, and the commits they started from; each result once, and not `this` one.

    Returns:
        the experiments, and by name why others have no scores.
    """
    found: list[Experiment] = []
    troubles = {name: f"failed; dvc queue logs {name} says why" for name in _failed(root)}
    for name, revision, baseline in _candidates(root):
        try:
            one = _read(name, revision, baseline, partial(_committed, root, revision))
            if one.changed:
                raise ValueError(f"its scores are of other settings ({', '.join(one.changed)})")
            if OURS not in one.evaluation.scores:
                raise ValueError(f"it has no scores of {OURS}")
        except ValueError as error:
            if name != "commit":  # not every commit has results
                troubles[f"{name} ({revision[:7]})"] = str(error)
            continue
        if not any(one.same_result(known) for known in (this, *found)):
            found.append(one)
    return found, troubles


def sweep(experiments: Sequence[Experiment], name: str) -> list[Experiment]:
    """Experiments that compare with the first one and differ from it in this setting at most, sorted by its value.

    Where the first one stands alone, the largest such group around another. Of equal values the first is taken; lists,
    such as steps by codebook, have no order and are left out.
    """
    experiments = [one for one in experiments if isinstance(one.settings.get(name), int | float)]
    groups: list[list[Experiment]] = []
    for centre in experiments:
        members: dict[Any, Experiment] = {}
        for one in experiments:
            if not one.incomparable(centre) and set(one.differences(centre)) <= {name}:
                members.setdefault(one.settings[name], one)
        groups.append([members[value] for value in sorted(members)])
    if groups and len(groups[0]) > 1:
        return groups[0]
    return max(groups, key=len, default=[])


def _read(name: str, revision: str, baseline: str, text_of: Callable[[str], str | None]) -> Experiment:
    raw, lock = _mapping(text_of(PARAMS), PARAMS), _mapping(text_of("dvc.lock") or "{}", "dvc.lock")
    stages = list((lock.get("stages") or {}).values())
    ran = [flatten(stage.get("params", {}).get(PARAMS, {})) for stage in stages]
    profile = next((params["profile"] for params in ran if "profile" in params), raw.get("profile"))
    profiles = raw.get("profiles")
    if isinstance(profiles, Mapping):
        raw = raw | {"profiles": {key: value for key, value in profiles.items() if key == profile}}
    now = in_force(flatten(raw), profile)
    settings = dict(now)
    for params in ran:
        settings |= {name: value for name, value in in_force(params, profile).items() if name in now}
    metrics = str(settings.get("paths.metrics", "metrics"))
    hashes = {out["path"]: str(out.get("md5", "")) for stage in stages for out in stage.get("outs", [])}
    judges = hashes.get(str(settings.get("paths.judges")))
    return Experiment(
        name=name,
        revision=revision,
        baseline=baseline,
        settings=settings,
        evaluation=read_evaluation(lambda file: text_of(f"{metrics}/{file}"), metrics),
        judges=judges or str(settings.get(f"profiles.{profile}.judges.kind", "unknown")),
        changed={
            name: now[name]
            for name, value in sorted(settings.items())
            if now[name] != value and not name.startswith(IRRELEVANT)
        },
        samples=hashes.get(str(settings.get("paths.samples")), ""),
    )


def _bare(name: str) -> str:
    """A setting of a profile without the profile."""
    return re.sub(r"^profiles\.[^.]+\.", "", name)


def _mapping(text: str | None, name: str) -> dict[str, Any]:
    if text is None:
        raise ValueError(f"{name}: no such file")
    try:
        found = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}: holds {type(found).__name__}, expected settings by name")
    return found


# ---------------------------------------------------------------------- files and git


def _candidates(root: Path) -> Iterator[tuple[str, str, str]]:
    """Name, commit and baseline: the experiments, newest first, then HEAD and the commits they started from."""
    listing = _git(root, "for-each-ref", "--sort=-committerdate", "--format=%(refname) %(objectname)", "refs/exps")
    baselines = []
    for line in (listing or "").splitlines():
        reference, revision = line.rsplit(" ", 1)
        if match := _EXPERIMENT.fullmatch(reference):
            baselines.append(match[1] + match[2])
            yield match[3], revision, baselines[-1]
    for revision in dict.fromkeys(filter(None, [_head(root), *baselines])):
        yield "commit", revision, revision


def _head(root: Path) -> str:
    return (_git(root, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip()


def _failed(root: Path) -> list[str]:
    """Names of experiments whose run from the queue failed: DVC keeps them as a stash."""
    if _git(root, "rev-parse", "--verify", "--quiet", "refs/exps/celery/failed") is None:
        return []
    log = _git(root, "log", "--walk-reflogs", "--format=%gs", "refs/exps/celery/failed")
    return sorted(match[1] for line in (log or "").splitlines() if (match := _FAILED.search(line)))


def _committed(root: Path, revision: str, name: str) -> str | None:
    return _git(root, "cat-file", "blob", f"{revision}:./{name}")


def _git(root: Path, *command: str) -> str | None:
    """Git's output; None if the command fails, as outside a repository, or if git is not installed."""
    try:
        answer = subprocess.run(["git", *command], cwd=root, capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.decode("utf-8", "replace") if answer.returncode == 0 else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
