"""MLflow watches: curves, parameters and pictures of a run. The only place that imports mlflow.

All stages of one experiment share one run. It is found by its tags: the experiment and baseline that DVC
exports (`dvc exp run`), else the workspace and the commit, and in both cases a fingerprint of the parameters,
so that a run's parameters never have to change. A stage that already finished in that run opens a new one.

Nothing here may end a stage: hours of training do not depend on a tracking server. The first trouble is
logged as a warning; what could not be sent is tried again, and in the end kept under `.mlflow/unsent/`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
        self._calls: list[tuple[dict[str, str], Callable[[], object]]] = []  # description, what sends it
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
        method = "log_artifacts" if source.is_dir() else "log_artifact"
        self._call(
            {"artifact": str(source.resolve()), "folder": folder},
            lambda: getattr(self._client, method)(self.run_id, str(source), folder or None),
        )

    def text(self, text: str, name: str) -> None:
        """Write a small text file into the run."""
        self._call({"text": text, "name": name}, lambda: self._client.log_text(self.run_id, text, name))

    def flush(self) -> None:
        """Send what is buffered; after trouble only once a while, for every try costs a time-out."""
        if time.monotonic() >= self._retry_at:
            self._send()

    # ------------------------------------------------------------------ inside

    def _add(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._points += [(name, float(value), step, now) for name, value in values.items()]

    def _call(self, description: dict[str, str], call: Callable[[], object]) -> None:
        self._calls.append((description, call))
        self.flush()

    def _send(self) -> None:
        try:
            if self._client is None:
                self._client, self.run_id = _join_run(self.stage, self._params)
            while self._points:
                self._log_batch(self._points[:METRICS_PER_BATCH])
                del self._points[:METRICS_PER_BATCH]
            while self._calls:
                self._calls[0][1]()
                del self._calls[0]
        except Exception as error:  # whatever the store raises
            self._trouble(error)

    def _log_batch(self, points: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        batch = [Metric(name, value, milliseconds, step) for name, value, step, milliseconds in points]
        self._client.log_batch(self.run_id, metrics=batch)

    def _trouble(self, error: Exception) -> None:
        if self._failures == 0:
            reason = (str(error).strip().splitlines() or [""])[0]
            shown = f"{type(error).__name__}: {reason}"[:240]
            _logger.warning("MLflow (%s) failed, the stage goes on without it: %s", tracking_uri(), shown)
        self._retry_at = time.monotonic() + RETRY_AFTER_S * 2**self._failures
        self._failures += 1

    def _close(self, status: str) -> None:
        failures = self._failures
        self._send()
        if self._client is not None and self._failures == failures:
            try:
                self._client.set_tag(self.run_id, f"stage.{self.stage}", status.lower())
                self._client.set_terminated(self.run_id, status)
            except Exception as error:
                self._trouble(error)
        if self._points or self._calls:
            self._keep_unsent()

    def _keep_unsent(self) -> None:
        name = f"{self.stage}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.jsonl"
        entries: list[dict[str, Any]] = [
            {"key": key, "value": value, "step": step, "timestamp": milliseconds}
            for key, value, step, milliseconds in self._points
        ]
        entries += [description for description, _ in self._calls]
        lines = "".join(json.dumps({"run_id": self.run_id, **entry}) + "\n" for entry in entries)
        try:
            with atomic_path(_home() / "unsent" / name) as temporary:
                temporary.write_text(lines, encoding="utf-8")
            kept = f"kept in {_home() / 'unsent' / name}"
        except OSError as error:
            kept = f"lost, since they could not be written either ({error})"
        _logger.warning("MLflow: %d entries of stage %s were not sent; %s", len(entries), self.stage, kept)


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
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_home().as_posix()}/mlflow.db"


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


def _mlflow_client() -> Any:
    # Before the import, for MLflow reads these once. No usage reports, no banners on stdout, and a server that
    # does not answer is given up after seconds (MLflow's own patience is many minutes a call).
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow.tracking import MlflowClient

    for name in ("alembic", "mlflow"):  # a new database tells of every table otherwise
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri())


def _join_run(stage: str, params: Params) -> tuple[Any, str]:
    settings = {name: _setting(value) for name, value in flatten(params.to_dict()).items()}
    key = _run_key(settings)
    clauses = " and ".join(f"tags.`{name}` = '{value}'" for name, value in key.items())
    _home().mkdir(parents=True, exist_ok=True)
    with FileLock(_home() / "lock", timeout=120):  # two processes that create MLflow's database at once crash
        client = _mlflow_client()
        experiment = _experiment(client)
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
        return client, run_id


def _experiment(client: Any) -> str:
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is None:
        local = tracking_uri().startswith("sqlite:")  # a server decides itself where artifacts go
        location = (_home() / "artifacts").as_uri() if local else None
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=location))
        except Exception:
            known = client.get_experiment_by_name(EXPERIMENT)  # another machine was faster
            if known is None:
                raise
    return str(known.experiment_id)


def _log_params(client: Any, run_id: str, settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entries = [Param(name, value) for name, value in settings.items()]
    for start in range(0, len(entries), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=entries[start : start + PARAMS_PER_BATCH])


def _setting(value: Any) -> str:
    return str(value)[:LONGEST_PARAM]


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
