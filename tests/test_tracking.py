"""MLflow with a real SQLite store, two processes at once, and a store that is not there."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from helpers.browser import BROWSER, FLAGS, require_browser
from helpers.forks import FORKS
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from specmaskfoley import tracking
from specmaskfoley.metrics import METRICS
from specmaskfoley.settings import Params

PARAMS = ROOT / "params.yaml"


def load(**changes: Any) -> Params:
    raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    return Params.from_mapping(raw | changes)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: its migrations take seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (folder / ".mlflow").mkdir()
        tracking._mlflow_client()
    return folder / ".mlflow" / "mlflow.db"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project directory with one commit and an empty database."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    (tmp_path / ".mlflow").mkdir()
    shutil.copy(empty_database, tmp_path / ".mlflow" / "mlflow.db")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "commit", "-q", "--allow-empty", "-m", "change")


def client() -> Any:
    return tracking._mlflow_client()


def runs() -> list[Any]:
    mlflow = client()
    experiment = mlflow.get_experiment_by_name(tracking.EXPERIMENT)
    return list(mlflow.search_runs([experiment.experiment_id], order_by=["start_time ASC"]))


def stage(name: str, params: Params) -> None:
    with tracking.stage_run(name, params):
        pass


def test_stages_share_one_run_with_parameters_curves_and_files(store: Path) -> None:
    (store / "picture.png").write_bytes(b"png")
    with tracking.stage_run("train_codec", load()) as log:
        for step in range(1, 121):
            log.metrics("codec", {"loss": 1 / step, "accuracy": 0.5}, step)
    with tracking.stage_run("evaluate", load()) as log:
        log.summary({"fd": 12.5, "onset_f1": None})
        log.artifact("picture.png", "pictures")
        log.text("hello", "notes/hello.txt")

    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("workspace-")
    assert run.data.params["cfg.scale"] == str(load().cfg.scale)
    assert run.data.params["profile"] == "mini"
    assert len(run.data.params) == len(tracking.flatten(load().to_dict()))
    assert run.data.metrics == {"codec/loss": 1 / 120, "codec/accuracy": 0.5, "fd": 12.5}
    assert run.data.tags["stage.train_codec"] == run.data.tags["stage.evaluate"] == "finished"
    history = client().get_metric_history(run.info.run_id, "codec/loss")
    assert [(point.step, point.value) for point in history] == [(step, 1 / step) for step in range(1, 121)]
    stored = sorted(p.name for p in (store / ".mlflow" / "artifacts").rglob("*") if p.is_file())
    assert stored == ["hello.txt", "picture.png"]
    assert not (store / "mlruns").exists()
    assert not (store / ".mlflow" / "unsent").exists()


def test_changed_parameters_or_code_and_repeated_stages_open_new_runs(store: Path) -> None:
    stage("train_codec", load())
    stage("train_backbone", load())
    assert len(runs()) == 1
    stage("train_codec", load(seed=1))  # would raise in MLflow if logged into the first run
    assert [run.data.params["seed"] for run in runs()] == ["0", "1"]
    stage("train_codec", load())  # repeated: the first run's curves stay as they are
    assert len(runs()) == 3
    assert runs()[2].data.tags["rerun_of"] == runs()[0].info.run_id
    stage("evaluate", load())  # joins the newest
    assert runs()[2].data.tags["stage.evaluate"] == "finished"
    commit(store)
    stage("train_codec", load())
    assert len(runs()) == 4


def test_an_experiment_of_dvc_is_one_run_whatever_head_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-fox")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    stage("train_codec", load())
    commit(store)
    stage("evaluate", load())
    _, run = runs()
    assert run.info.run_name == "brave-fox"
    assert run.data.tags["dvc.baseline"] == "a" * 40


def test_experiments_of_one_commit_lie_under_one_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, baseline in (("brave-fox", "a"), ("shy-owl", "a"), ("old-cat", "b")):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        monkeypatch.setenv("DVC_EXP_BASELINE_REV", baseline * 40)
        for each in ("sample", "evaluate"):
            stage(each, load())
    above = {run.info.run_name: run for run in runs() if "mlflow.parentRunId" not in run.data.tags}
    below = {run.info.run_name: run.data.tags["mlflow.parentRunId"] for run in runs() if run.info.run_name not in above}
    first, second = (above[f"experiments-{letter * 7}"].info for letter in "ab")
    assert below == {"brave-fox": first.run_id, "shy-owl": first.run_id, "old-cat": second.run_id}
    assert len(above) == 2
    assert first.status == "FINISHED"


def test_a_run_is_named_by_what_differs_from_the_commit(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(PARAMS, store)
    git(store, "add", "params.yaml")
    commit(store)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = load().to_dict()
    many = {"steps": 6, "gumbel_temperature": 3.5, "batch_size": 7, "videos": 3}
    for params, name in (
        (load(), f"workspace-{head[:7]}"),
        (load(cfg={"scale": 3.0}), "cfg.scale=3"),
        (load(cfg={"scale": 3.0}, run={**changed["run"], "threads": 1}, seed=4), "seed=4, cfg.scale=3"),
        (load(sample=many), "sample.steps=6, sample.gumbel_temperature=3.5, sample.batch_size=7 and 1 more"),
        (load(profile="vggsound", cfg={"mode": "text"}), "profile=vggsound, cfg.mode=text"),
    ):
        stage("sample", params)
        assert runs()[-1].info.run_name == name
    monkeypatch.setenv("DVC_EXP_NAME", "brave-fox")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", head)
    stage("sample", load(cfg={"scale": 3.0}))
    assert runs()[-1].info.run_name == "cfg.scale=3"
    assert runs()[-1].data.tags["dvc.experiment"] == "brave-fox"


@pytest.mark.pipeline
def test_experiments_of_dvc_have_names_and_one_parent(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the checkout and in DVC's temporary copy of it."""
    monkeypatch.delenv("DVC_ROOT")  # DVC sets it
    shutil.copy(PARAMS, store)
    (store / "stage.py").write_text(
        "from specmaskfoley import tracking\nfrom specmaskfoley.settings import Params\n"
        "with tracking.stage_run('sample', Params.load()): open('out.txt', 'w').close()\n"
    )
    work = {"cmd": "python stage.py", "params": ["cfg.scale", "sample.steps"], "outs": ["out.txt"]}
    (store / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"sample": work}}))
    (store / ".gitignore").write_text(".mlflow/\n")
    for program, *arguments in (
        ["dvc", "init", "-q"],
        ["git", "config", "user.name", "test"],
        ["git", "config", "user.email", "test@example.org"],
        ["git", "add", "."],
        ["git", "commit", "-qm", "pipeline"],
        ["dvc", "exp", "run", "-q", "-n", "here", "-S", "cfg.scale=3"],
        ["dvc", "exp", "run", "-q", "-n", "there", "--temp", "-S", "sample.steps=6", "-S", "cfg.scale=2"],
    ):
        if program == "dvc":
            code, output = FORKS.run(["-m", "dvc", *arguments], store, os.environ)
            assert code == 0, output
        else:
            git(store, *arguments)
    monkeypatch.setenv("DVC_ROOT", str(store))
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    above, here, there = runs()
    assert above.info.run_name == f"experiments-{head[:7]}"
    assert [run.info.run_name for run in (here, there)] == ["cfg.scale=3", "cfg.scale=2, sample.steps=6"]
    assert [run.data.tags["dvc.experiment"] for run in (here, there)] == ["here", "there"]
    assert {run.data.tags["mlflow.parentRunId"] for run in (here, there)} == {above.info.run_id}


@pytest.mark.parametrize("text", ["", "a: [", "profile: mini", "profile: other\nprofiles: {other: {}}"])
def test_settings_of_another_code_give_no_name(text: str, store: Path) -> None:
    (store / "params.yaml").write_text(text)
    git(store, "add", "params.yaml")
    commit(store)
    stage("sample", load())
    assert runs()[0].info.run_name.startswith("workspace-")


def test_without_git_there_is_still_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nothing"))
    stage("train_codec", load())
    assert runs()[0].data.tags["dvc.baseline"] == "no-git"


def test_a_failed_stage_goes_on_in_its_run(store: Path) -> None:
    def fail() -> None:
        with tracking.stage_run("train_codec", load()) as log:
            log.metrics("codec", {"loss": 2.0}, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (run,) = runs()
    assert run.info.status == "FAILED"
    assert run.data.metrics["codec/loss"] == 2.0
    with tracking.stage_run("train_codec", load()) as log:
        log.metrics("codec", {"loss": 1.0}, 2)
    (run,) = runs()
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_two_processes_may_create_the_database_at_once(store: Path) -> None:
    shutil.rmtree(store / ".mlflow")
    code = (
        "import sys; from specmaskfoley import tracking; from specmaskfoley.settings import Params\n"
        "_, file, name = sys.argv\n"
        "with tracking.stage_run(name, Params.load(file)) as log: log.metrics(name, {'loss': 1.0}, 1)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(PARAMS), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in ("first", "second")
    ]
    for process in started:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        assert out == errors == b""  # neither a warning of ours nor MLflow's and alembic's chatter
    (run,) = runs()
    assert run.data.metrics == {"first/loss": 1.0, "second/loss": 1.0}


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "htp://typo", "sqlite:////nowhere/at/all/mlflow.db", "sqlite:////tmp"]
)
def test_an_unreachable_store_warns_once_and_keeps_what_was_logged(
    uri: str, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if uri.endswith(".db"):
        (store / "file").write_text("not a directory")
        uri = f"sqlite:///{store}/file/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "specmaskfoley.tracking"), tracking.stage_run("x", load()) as log:
        assert uri in caplog.text  # seen at the start, not after the first batch
        for step in range(200):
            log.metrics("x", {"loss": float(step)}, step)
        log.text("hello", "note.txt")
        log.summary({"fd": 1.0})
    assert time.monotonic() - started < 30
    first, last = (record.getMessage() for record in caplog.records if record.name == tracking.__name__)
    assert "goes on without it" in first
    assert "202 entries" in last
    (kept,) = (store / ".mlflow" / "unsent").glob("x-*.jsonl")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert rows[200][:3] == ["x/loss", 199.0, 199]
    assert rows[-1]["text"] == "hello"


def test_a_store_that_comes_back_gets_everything(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), tracking.stage_run("x", load()) as log:
        send = tracking._log_points
        monkeypatch.setattr(tracking, "_log_points", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        for step in range(100):
            log.metrics("x", {"loss": 0.0}, step)
        monkeypatch.setattr(tracking, "_log_points", send)
    assert len([record for record in caplog.records if "gone" in record.getMessage()]) == 1
    (run,) = runs()
    assert len(client().get_metric_history(run.info.run_id, "x/loss")) == 100
    assert not (store / ".mlflow" / "unsent").exists()


def test_what_could_not_be_sent_is_sent_by_the_next_stage(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = store / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"then")
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "htp://typo")
        away.setenv("DVC_EXP_NAME", "brave-fox")
        with tracking.stage_run("x", load(seed=3)) as log:
            for step in range(60):
                log.metrics("x", {"loss": 1 / (step + 1)}, step)
            log.artifact(pictures, "seen")
            log.artifact(pictures / "a.png")
            log.text("hello", "note.txt")
    assert "until the next stage" in caplog.text
    (pictures / "a.png").write_bytes(b"later")  # the outputs of another experiment
    stage("report", load())
    _, sent, own = runs()
    assert sent.info.run_name == sent.data.tags["dvc.experiment"] == "brave-fox"
    assert (sent.data.params["seed"], sent.data.tags["stage.x"], sent.info.status) == ("3", "finished", "FINISHED")
    assert own.data.tags["stage.report"] == "finished"
    assert len(client().get_metric_history(sent.info.run_id, "x/loss")) == 60
    files = {
        p.relative_to(store / ".mlflow/artifacts" / sent.info.run_id / "artifacts").as_posix(): p.read_bytes()
        for p in (store / ".mlflow" / "artifacts").rglob("*")
        if p.is_file()
    }
    assert files == {"seen/a.png": b"then", "a.png": b"then", "note.txt": b"hello"}
    assert not list((store / ".mlflow" / "unsent").iterdir())


def test_a_damaged_kept_file_is_named_and_hinders_nothing(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = store / ".mlflow" / "unsent" / "x-1.jsonl"
    kept.parent.mkdir()
    kept.write_text("{")
    stage("report", load())
    assert f"{kept} stays unsent" in caplog.text
    assert kept.exists()
    assert runs()[0].data.tags["stage.report"] == "finished"


@pytest.mark.parametrize("copied", [False, True])
def test_artifacts_follow_a_checkout_that_is_moved_or_copied(
    copied: bool, store: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store / "first", tmp_path_factory.mktemp("elsewhere") / "100% second"
    first.mkdir()
    (store / ".mlflow").rename(first / ".mlflow")
    monkeypatch.setenv("DVC_ROOT", str(first))
    with tracking.stage_run("codec", load()) as log:
        log.text("before", "before.txt")
    if copied:
        shutil.copytree(first, second)
    else:
        first.rename(second)
    monkeypatch.setenv("DVC_ROOT", str(second))
    _artifact_repos_cache.clear()  # as in another process
    with tracking.stage_run("backbone", load()) as log:
        log.text("after", "after.txt")
    (run,) = runs()
    assert run.info.artifact_uri.startswith((second / ".mlflow" / "artifacts").as_uri())
    assert sorted(file.path for file in client().list_artifacts(run.info.run_id)) == ["after.txt", "before.txt"]
    assert sorted(p.name for p in second.rglob("*.txt")) == ["after.txt", "before.txt"]
    assert [p.name for p in first.rglob("*.txt")] == (["before.txt"] if copied else [])


@pytest.mark.parametrize("name", ["ws_feature%2Ffoley", "end?", "a#b", "ü and space", "x?&=1;+", "100%"])
def test_a_checkout_may_have_any_name(
    name: str, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store / name
    folder.mkdir()
    (store / ".mlflow").rename(folder / ".mlflow")
    monkeypatch.setenv("DVC_ROOT", str(folder))
    with tracking.stage_run("x", load()) as log:
        log.text("hello", "note.txt")
    assert not caplog.records
    assert runs()[0].data.tags["stage.x"] == "finished"
    (note,) = store.rglob("note.txt")
    assert folder / ".mlflow" in note.parents
    assert {p.name for p in store.iterdir()} == {".git", name}  # nothing beside the project


@pytest.mark.parametrize("deleted", ["between stages", "during a stage"])
def test_an_experiment_deleted_in_the_ui_is_restored(
    deleted: str, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage("codec", load())
    experiment = client().get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    if deleted == "between stages":
        client().delete_experiment(experiment)
    with tracking.stage_run("backbone", load()) as log:
        if deleted == "during a stage":
            client().delete_experiment(experiment)
        log.metrics("backbone", {"loss": 1.0}, 1)
    stage("control", load())
    assert "had been deleted; it is restored" in caplog.text
    (run,) = runs()
    assert run.data.metrics == {"backbone/loss": 1.0}
    assert run.data.tags["stage.backbone"] == "finished"
    assert not list((store / ".mlflow").glob("unsent/*"))


def test_a_dead_server_is_not_asked_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def join(*_: object) -> None:
        calls.append(time.monotonic())
        raise ConnectionError("no answer")

    monkeypatch.setattr(tracking, "_join_run", join)
    with tracking.stage_run("x", load()) as log:
        for step in range(1000):
            log.metrics("x", {"loss": 0.0}, step)
    assert len(calls) == 2  # at the start and at the end


def test_a_missing_artifact_is_our_own_error(store: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"), tracking.stage_run("x", load()) as log:
        log.artifact("nothing.png")


def test_telemetry_is_off_and_the_import_is_lazy() -> None:
    code = (
        "import sys, specmaskfoley.tracking as t; assert 'mlflow' not in sys.modules; t._mlflow_client()\n"
        "import mlflow.telemetry.client as c, os; assert c.get_telemetry_client() is None\n"
        "assert os.environ['DO_NOT_TRACK'] == 'true'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


@contextmanager
def mlflow_ui(folder: Path) -> Iterator[str]:
    """The command that README names, in a project's folder; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", "sqlite:///.mlflow/mlflow.db"]
    command = [sys.executable, "-m", "mlflow", "ui", *store, "--port", str(port)]
    log = folder / "ui.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while "startup complete" not in log.read_text(encoding="utf-8"):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(240)


@pytest.mark.browser
def test_the_table_of_runs_shows_the_scores(store: Path) -> None:
    require_browser()
    from playwright.sync_api import sync_playwright

    with tracking.stage_run("control", load()) as log:
        log.metrics("control", {"loss": 2.0}, 1)
    with tracking.stage_run("evaluate", load()) as log:
        log.summary({metric.name: 20 + number for number, metric in enumerate(METRICS)})
    with mlflow_ui(store) as address, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=str(BROWSER), args=FLAGS).new_page()
        page.set_viewport_size({"width": 2000, "height": 700})
        page.goto(f"{address}/#/experiments/1/runs?viewStateShareKey=scores")
        page.get_by_text(runs()[0].info.run_name).first.wait_for(timeout=240_000)
        page.get_by_role("columnheader", name=METRICS[0].name, exact=True).first.wait_for(timeout=60_000)
        headers = {header.inner_text().strip() for header in page.get_by_role("columnheader").all()}
    assert headers - {""} == {"Run Name", "Created", "Duration", "Metrics", *(metric.name for metric in METRICS)}
