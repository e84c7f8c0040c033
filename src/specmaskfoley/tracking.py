"""MLflow watches: curves, parameters and pictures of a run. The only place that imports mlflow.

All stages of one experiment share one run. It is found by its tags: the experiment and baseline that DVC
exports (`dvc exp run`), else the workspace and the commit, and in both cases a fingerprint of the parameters,
so that a run's parameters never have to change. A stage that already finished in that run opens a new one.
DVC's experiments that started from one commit lie under one parent run. A run is named by the settings that differ
from the commit's.

Nothing here may end a stage: hours of training do not depend on a tracking server. The first trouble is
logged as a warning; what could not be sent is tried again, and in the end kept under `.mlflow/unsent/`, from
where the next stage that reaches the store sends it.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from specmaskfoley.metrics import METRICS
from specmaskfoley.settings import Params
from specmaskfoley.settings.params import IRRELEVANT
from specmaskfoley.settings.reading import parse_yaml
from specmaskfoley.storage.absent import pandas_absent
from specmaskfoley.storage.files import atomic_path, sha256_text

EXPERIMENT, WORKSPACE = "specmaskfoley", "workspace"
NAMED = 3  # settings in the name of a run
VIEW = "mlflow.sharedViewState.scores"  # of the table of runs, at #/experiments/1/runs?viewStateShareKey=scores
FLUSH_EVERY = 50  # metric values; one log_batch costs as much as a few single calls
RETRY_AFTER_S = 60.0  # doubled after every further failure: a silent server costs 20 s a try
METRICS_PER_BATCH, PARAMS_PER_BATCH, LONGEST_PARAM = 1000, 100, 6000  # MLflow's limits

_logger = logging.getLogger(__name__)


class Log:
    """What a stage tells MLflow. Every method returns even when the store is gone."""

    def __init__(self, stage: str, params: Params) -> None:
        self.stage = stage
        self.run_id: str | None = None
        self._params = params
        self._client: Any = None
        self._points: list[tuple[str, float, int, int]] = []  # name, value, step, milliseconds
        self._files: list[dict[str, str]] = []  # as `_log_file` takes them
        self._failures = 0
        self._retry_at = -math.inf

    def metrics(self, network: str, values: Mapping[str, float], step: int) -> None:
        """Points of a network's curves; named `<network>/<name>` and sent in batches."""
        self._add({f"{network}/{name}": value for name, value in values.items()}, step)
        if len(self._points) >= FLUSH_EVERY:
            self.flush()

    def summary(self, scores: Mapping[str, float | None]) -> None:
        """Final scores, under their own names; null left out."""
        self._add({name: value for name, value in scores.items() if value is not None}, 0)
        self.flush()

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """Copy a file, or a directory's contents, into the run."""
        source = Path(path)
        if not source.exists():
            raise FileNotFoundError(f"{path}: no such file to log as an artifact")  # ours, not the store's
        self._files.append({"artifact": str(source.resolve()), "folder": folder})
        self.flush()

    def text(self, text: str, name: str) -> None:
        """Write a small text file into the run."""
        self._files.append({"text": text, "name": name})
        self.flush()

    def flush(self) -> None:
        """Send what is buffered; after trouble only once a while, for every try costs a time-out."""
        if time.monotonic() >= self._retry_at:
            self._send()

    # ------------------------------------------------------------------ inside

    def _add(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._points += [(name, float(value), step, now) for name, value in values.items()]

    def _send(self) -> None:
        try:
            if self._client is None:
                self._client, self.run_id = _join_run(self.stage, _identity(self._params))
            while self._points:
                _log_points(self._client, self.run_id, self._points[:METRICS_PER_BATCH])
                del self._points[:METRICS_PER_BATCH]
            while self._files:
                _log_file(self._client, self.run_id, self._files[0])
                del self._files[0]
        except Exception as error:  # whatever the store raises
            self._trouble(error)

    def _trouble(self, error: Exception) -> None:
        if self._failures == 0:
            _logger.warning("MLflow (%s) failed, the stage goes on without it: %s", tracking_uri(), _shown(error))
        self._client = None  # the run may be gone: the next try looks for it, or opens another
        self._retry_at = time.monotonic() + RETRY_AFTER_S * 2**self._failures
        self._failures += 1

    def _close(self, status: str) -> None:
        failures = self._failures
        self._send()
        if self._client is not None and self._failures == failures:
            try:
                _end(self._client, self.run_id, self.stage, status)
            except Exception as error:
                self._trouble(error)
        if self._points or self._files:
            self._keep_unsent(status)

    def _keep_unsent(self, status: str) -> None:
        """A line that says which run this belongs to, a line an entry; files are copied, for outputs change."""
        name = f"{self.stage}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        unsent = _home() / "unsent"
        lines: list[object] = [{"stage": self.stage, "status": status, **_identity(self._params)}]
        lines += self._points
        try:
            for number, entry in enumerate(self._files):
                if "artifact" in entry:
                    source, copy = Path(entry["artifact"]), Path(name, str(number), Path(entry["artifact"]).name)
                    (unsent / copy).parent.mkdir(parents=True)
                    (shutil.copytree if source.is_dir() else shutil.copy)(source, unsent / copy)
                    entry = {**entry, "artifact": copy.as_posix()}
                lines.append(entry)
            with atomic_path(unsent / f"{name}.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            kept = f"kept in {unsent / name}.jsonl until the next stage that reaches MLflow sends them"
        except OSError as error:
            kept = f"lost, since they could not be written either ({error})"
        _logger.warning("MLflow: %d entries of stage %s were not sent; %s", len(lines) - 1, self.stage, kept)


@contextmanager
def stage_run(stage: str, params: Params) -> Iterator[Log]:
    """Join (or open) this experiment's run for the length of a stage."""
    log = Log(stage, params)
    log._send()  # opens the run: a wrong address is seen now, not after the first 50 values
    try:
        yield log
    except BaseException as error:
        log._close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    log._close("FINISHED")


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else a database under DVC_ROOT (the working directory may be DVC's temporary copy)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own_database()


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": item for name, item in flatten(value).items()}
        else:
            flat[str(key)] = value
    return flat


def _home() -> Path:
    return Path(os.environ.get("DVC_ROOT") or os.getcwd()).resolve() / ".mlflow"


def _own_database() -> str:
    from sqlalchemy import URL

    # SQLAlchemy quotes what its version reads quoted ("%", "?"). MLflow takes what follows "sqlite:///" for a plain
    # path and makes its folder; with the driver named it does not.
    return URL.create("sqlite+pysqlite", database=f"{_home().as_posix()}/mlflow.db").render_as_string()


def _mlflow_client() -> Any:
    # Before the import, for MLflow reads these once. No usage reports, no banners on stdout, and a server that
    # does not answer is given up after seconds (MLflow's own patience is many minutes a call).
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    collects = gc.isenabled()
    gc.disable()  # nobody looks for garbage in what stays: a quarter of the time that MLflow takes
    try:
        with pandas_absent():
            from mlflow.store.db import utils
            from mlflow.tracking import MlflowClient

            utils.MAX_RETRY_COUNT = 3  # with MLflow's 10, a database that cannot be opened takes 100 s a try
            for name in ("alembic", "mlflow"):  # a new database tells of every table otherwise
                logging.getLogger(name).setLevel(logging.WARNING)
            return MlflowClient(tracking_uri=tracking_uri())  # which imports its kind of store
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def _join_run(stage: str, identity: Mapping[str, Any]) -> tuple[Any, str]:
    _home().mkdir(parents=True, exist_ok=True)
    with FileLock(_home() / "lock", timeout=120):  # two processes that create MLflow's database at once crash
        client = _mlflow_client()
        experiment = _experiment(client)
        _send_kept(client, experiment)
        return client, _open_run(client, experiment, stage, identity)


def _open_run(client: Any, experiment: str, stage: str, identity: Mapping[str, Any]) -> str:
    """`identity`: as `_identity` makes it."""
    key = identity["run"]
    newest = _newest_run(client, experiment, key)
    if newest is not None and newest.data.tags.get(f"stage.{stage}") != "finished":
        run_id = str(newest.info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        tags = dict(key) | ({"rerun_of": newest.info.run_id} if newest is not None else {})
        if commit := _git("rev-parse", "HEAD"):
            tags["mlflow.source.git.commit"] = commit
        if key["dvc.experiment"] != WORKSPACE:
            tags["mlflow.parentRunId"] = _sweep_run(client, experiment, key["dvc.baseline"])
        run = client.create_run(experiment, tags=tags, run_name=identity["name"])
        run_id = str(run.info.run_id)
        _log_params(client, run_id, identity["settings"])
    client.set_tag(run_id, f"stage.{stage}", "running")
    return run_id


def _sweep_run(client: Any, experiment: str, baseline: str) -> str:
    """The run under which MLflow shows all of DVC's experiments that started from one commit."""
    key = {"sweep.baseline": baseline}
    known = _newest_run(client, experiment, key)
    if known is not None:
        return str(known.info.run_id)
    run = client.create_run(experiment, tags=key, run_name=f"experiments-{baseline[:7]}")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _newest_run(client: Any, experiment: str, tags: Mapping[str, str]) -> Any:
    clauses = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment], clauses, max_results=1, order_by=["start_time DESC"])
    return found[0] if found else None


def _send_kept(client: Any, experiment: str) -> None:
    """Send what earlier stages could not (`Log._keep_unsent`); sending a point twice changes nothing in MLflow."""
    for kept in sorted((_home() / "unsent").glob("*.jsonl")):
        try:
            head, *entries = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
            run_id = _open_run(client, experiment, head["stage"], head)
            points = [entry for entry in entries if isinstance(entry, list)]
            for start in range(0, len(points), METRICS_PER_BATCH):
                _log_points(client, run_id, points[start : start + METRICS_PER_BATCH])
            for entry in entries[len(points) :]:
                if "artifact" in entry:
                    entry["artifact"] = str(kept.parent / entry["artifact"])
                _log_file(client, run_id, entry)
            _end(client, run_id, head["stage"], head["status"])
            kept.unlink()
            shutil.rmtree(kept.with_suffix(""), ignore_errors=True)
        except Exception as error:
            _logger.warning("MLflow: %s stays unsent; delete it to give it up: %s", kept, _shown(error))
            break  # each further one would cost a time-out


def _log_points(client: Any, run_id: str | None, points: Sequence[Sequence[Any]]) -> None:
    """`points`: name, value, step and milliseconds of each."""
    from mlflow.entities import Metric

    batch = [Metric(name, value, milliseconds, step) for name, value, step, milliseconds in points]
    client.log_batch(run_id, metrics=batch)


def _log_file(client: Any, run_id: str | None, entry: Mapping[str, str]) -> None:
    """`entry`: {"artifact": path of a file or directory, "folder"}, or {"text", "name"}."""
    if "text" in entry:
        client.log_text(run_id, entry["text"], entry["name"])
    else:
        log = client.log_artifacts if Path(entry["artifact"]).is_dir() else client.log_artifact
        log(run_id, entry["artifact"], entry["folder"] or None)


def _end(client: Any, run_id: str | None, stage: str, status: str) -> None:
    client.set_tag(run_id, f"stage.{stage}", status.lower())
    client.set_terminated(run_id, status)


def _shown(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {reason}"[:240]


def _experiment(client: Any) -> str:
    """The id of our experiment. Its table of runs shows no metric by default, so it comes with a view of the scores."""
    known = client.get_experiment_by_name(EXPERIMENT)
    local = tracking_uri().startswith("sqlite")  # a server decides itself where artifacts go
    here = (_home() / "artifacts").as_uri() if local else None
    view = json.dumps({"selectedColumns": [f"metrics.`{metric.name}`" for metric in METRICS]})
    if known is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=here, tags={VIEW: view}))
        except Exception:
            known = client.get_experiment_by_name(EXPERIMENT)  # another machine was faster
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
        _logger.warning("MLflow: experiment %s had been deleted; it is restored", EXPERIMENT)
    if known.tags.get(VIEW) != view:
        client.set_experiment_tag(known.experiment_id, VIEW, view)
    old = known.artifact_location
    if here and old != here and old.endswith("/.mlflow/artifacts") and not os.environ.get("MLFLOW_TRACKING_URI"):
        _move_artifacts(old, here)
    return str(known.experiment_id)


def _move_artifacts(old: str, new: str) -> None:
    """The checkout was moved or copied. MLflow keeps absolute places, of each run too, and cannot change them."""
    with closing(sqlite3.connect(_home() / "mlflow.db", timeout=60)) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
            database.execute(moved, (new, len(old) + 1, len(old), old))


def _log_params(client: Any, run_id: str, settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entries = [Param(name, value) for name, value in settings.items()]
    for start in range(0, len(entries), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=entries[start : start + PARAMS_PER_BATCH])


def _identity(params: Params) -> dict[str, Any]:
    """What a run of MLflow is found by (`run`, as tags), what it is called, and its settings."""
    values = flatten(params.to_dict())
    settings = {name: str(value)[:LONGEST_PARAM] for name, value in values.items()}
    name = os.environ.get("DVC_EXP_NAME")
    baseline = os.environ.get("DVC_EXP_BASELINE_REV") if name else None
    key = {
        "dvc.experiment": name or WORKSPACE,
        "dvc.baseline": baseline or _git("rev-parse", "HEAD") or "no-git",
        "params.sha256": sha256_text(json.dumps(settings, sort_keys=True))[:16],
    }
    return {"run": key, "name": _run_name(key, values), "settings": settings}


def _run_name(key: Mapping[str, str], values: Mapping[str, object]) -> str:
    """What differs from the committed settings (`cfg.scale=3`), else DVC's name of the experiment, else the commit."""
    changed = _changed(values, key["dvc.baseline"])
    if changed:
        shown = ", ".join(f"{name}={_shown_value(value)}" for name, value in list(changed.items())[:NAMED])
        return shown + (f" and {len(changed) - NAMED} more" if len(changed) > NAMED else "")
    name = key["dvc.experiment"]
    return name if name != WORKSPACE else f"{WORKSPACE}-{key['dvc.baseline'][:7]}"


def _changed(values: Mapping[str, object], commit: str) -> dict[str, object]:
    """Settings that may change a result and have another value than in a commit's params.yaml.

    With another profile it is the profile, and what differs from the commit's settings of that one.
    """
    try:
        committed = parse_yaml(_git("show", f"{commit}:./params.yaml"))
        if not isinstance(committed, dict):
            return {}
        other = flatten(Params.from_mapping(committed | {"profile": values["profile"]}).to_dict())
    except (ValueError, yaml.YAMLError):  # the settings of that commit are none of this code
        return {}
    other["profile"] = committed.get("profile")
    return {
        name: value for name, value in values.items() if value != other.get(name) and not name.startswith(IRRELEVANT)
    }


def _shown_value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _git(*arguments: str) -> str:
    """What git answers in the working directory; empty where it fails."""
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
