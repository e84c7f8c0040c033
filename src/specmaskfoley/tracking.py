"""MLflow watches: curves, parameters and pictures of a run. The only place that imports mlflow.

All stages of one experiment share one run. It is found by its tags: the experiment and baseline that DVC
exports (`dvc exp run`), else the workspace and the commit, and in both cases a fingerprint of the parameters,
so that a run's parameters never have to change. A stage that already finished in that run opens a new one.

Nothing here may end a stage: hours of training do not depend on a tracking server. The first trouble is
logged as a warning; what could not be sent is tried again, and in the end kept under `.mlflow/unsent/`, from
where the next stage that reaches the store sends it.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from specmaskfoley.storage.files import atomic_path, sha256_text

if TYPE_CHECKING:
    from specmaskfoley.settings import Params

EXPERIMENT = "specmaskfoley"
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

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Points of this stage's curves; named `<stage>/<name>` and sent in batches."""
        self._add({f"{self.stage}/{name}": value for name, value in values.items()}, step)
        if len(self._points) >= FLUSH_EVERY:
            self.flush()

    def summary(self, scores: Mapping[str, Any]) -> None:
        """Final numbers, nested as in metrics/*.json; named `<system>/<metric>`, null and text left out."""
        flat = flatten(scores, "/").items()
        self._add({k: v for k, v in flat if isinstance(v, int | float) and not isinstance(v, bool)}, 0)
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
                self._client, self.run_id = _join_run(self.stage, self._params)
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
        settings = _settings(self._params)
        lines: list[object] = [{"stage": self.stage, "status": status, "run": _run_key(settings), "settings": settings}]
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


def flatten(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = flatten(value, separator).items()
            flat |= {f"{key}{separator}{name}": item for name, item in inner}
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
    from mlflow.store.db import utils
    from mlflow.tracking import MlflowClient

    utils.MAX_RETRY_COUNT = 3  # with MLflow's 10, a database that cannot be opened takes 100 s a try
    for name in ("alembic", "mlflow"):  # a new database tells of every table otherwise
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri())


def _join_run(stage: str, params: Params) -> tuple[Any, str]:
    settings = _settings(params)
    _home().mkdir(parents=True, exist_ok=True)
    with FileLock(_home() / "lock", timeout=120):  # two processes that create MLflow's database at once crash
        client = _mlflow_client()
        experiment = _experiment(client)
        _send_kept(client, experiment)
        return client, _open_run(client, experiment, stage, _run_key(settings), settings)


def _open_run(client: Any, experiment: str, stage: str, key: Mapping[str, str], settings: Mapping[str, str]) -> str:
    clauses = " and ".join(f"tags.`{name}` = '{value}'" for name, value in key.items())
    found = client.search_runs([experiment], clauses, max_results=1, order_by=["start_time DESC"])
    if found and found[0].data.tags.get(f"stage.{stage}") != "finished":
        run_id = str(found[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        tags = dict(key) | ({"rerun_of": found[0].info.run_id} if found else {})
        if commit := _git_commit():
            tags["mlflow.source.git.commit"] = commit
        run = client.create_run(experiment, tags=tags, run_name=_run_name(key))
        run_id = str(run.info.run_id)
        _log_params(client, run_id, settings)
    client.set_tag(run_id, f"stage.{stage}", "running")
    return run_id


def _send_kept(client: Any, experiment: str) -> None:
    """Send what earlier stages could not (`Log._keep_unsent`); sending a point twice changes nothing in MLflow."""
    for kept in sorted((_home() / "unsent").glob("*.jsonl")):
        try:
            head, *entries = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
            run_id = _open_run(client, experiment, head["stage"], head["run"], head["settings"])
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
    known = client.get_experiment_by_name(EXPERIMENT)
    local = tracking_uri().startswith("sqlite")  # a server decides itself where artifacts go
    here = (_home() / "artifacts").as_uri() if local else None
    if known is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=here))
        except Exception:
            known = client.get_experiment_by_name(EXPERIMENT)  # another machine was faster
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
        _logger.warning("MLflow: experiment %s had been deleted; it is restored", EXPERIMENT)
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


def _settings(params: Params) -> dict[str, str]:
    return {name: str(value)[:LONGEST_PARAM] for name, value in flatten(params.to_dict()).items()}


def _run_key(settings: Mapping[str, str]) -> dict[str, str]:
    name = os.environ.get("DVC_EXP_NAME")
    baseline = os.environ.get("DVC_EXP_BASELINE_REV") if name else None
    text = json.dumps(dict(settings), sort_keys=True)
    return {
        "dvc.experiment": name or "workspace",
        "dvc.baseline": baseline or _git_commit() or "no-git",
        "params.sha256": sha256_text(text)[:16],
    }


def _run_name(key: Mapping[str, str]) -> str:
    name = key["dvc.experiment"]
    return name if name != "workspace" else f"workspace-{key['dvc.baseline'][:7]}"


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
