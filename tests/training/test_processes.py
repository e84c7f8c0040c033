"""Several processes train as one does: the same curves, one checkpoint, and an orderly end when one of them is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from helpers import ROOT
from helpers.forks import FORKS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo")

# A small control branch (or, of a codec's kind, a codec) on rows made up; `torchrun script FOLDER KIND STEPS PAUSE_S`.
TRAINING = f"""
import sys, time
from pathlib import Path
import torch
sys.path.insert(0, {str(ROOT / "tests")!r})
import numpy as np
from accelerate import Accelerator
from helpers.fitting import fit_on_cpu, RUN
from specmaskfoley.settings import Control, SpecMaskGIT as Settings, TokenGrid, Training
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import stage_main
from specmaskfoley.training.batches import InMemory
from specmaskfoley.codec.objective import CodecObjective
from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.control.objective import ControlObjective

folder, kind, steps, pause = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
micro_batch = int(sys.argv[5]) if len(sys.argv) > 5 else 0

def clips(count, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(16, (count, 20), generator=generator, dtype=torch.int16)
    prompt, sync = torch.randn(count, 4, generator=generator), torch.randn(count, 30, 6, generator=generator)
    semantic = torch.randn(count, 5, generator=generator)
    return TokenClips([f"clip{{n}}" for n in range(count)], tokens, prompt, sync, semantic)

def control_objective():
    sizes = Settings(kind="specmaskgit", depth=2, width=32, heads=2, mlp_width=64)
    backbone = SpecMaskGIT(sizes, grid=TokenGrid(2, 10, 1), codes=16, prompt_width=4)
    branch = ControlBranch(backbone, Control(depth=1, aligner_mlp_width=16), sync_width=6, semantic_width=5)
    made = ControlObjective(backbone, branch, clips(8, 2), prompt_dropout=0.3, device=torch.device("cpu"))
    return made, clips(50, 1).rows()

def codec_objective():
    from helpers.small_codec import COLUMN, rows, small_codec, train_codec
    mels = torch.rand(20, 32, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    settings = train_codec(adversarial_weight=0.5, adversarial_after=2, quantize_after=3, crop_columns=32//COLUMN[kind])
    codec, column = small_codec(kind), COLUMN[kind]
    made = CodecObjective(codec, settings, rows(mels), mels[:3], column=column, device=torch.device("cpu"))
    return made, rows(mels)

def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    objective, rows = control_objective() if kind == "control" else codec_objective()
    inner = objective.loss
    def slow(*arguments):
        time.sleep(pause)
        return inner(*arguments)
    objective.loss = slow
    validate = objective.validate
    def noted(generator):
        (folder / f"validated_by_{{accelerator.process_index}}").touch()
        return validate(generator)
    objective.validate = noted
    settings = Training(steps=steps, batch_size=8, base_learning_rate=0.03, warmup_steps=9, weight_decay=0.01,
                        grad_clip=1.0, checkpoint_every=10, validate_every=20)
    run = RUN.model_copy(update={{"micro_batch": micro_batch}})
    history = fit_on_cpu(objective, rows, settings, name="model", scratch=folder, accelerator=accelerator, run=run)
    if accelerator.is_main_process:
        torch.save({{"weights": objective.modules.state_dict(), "curves": history.curves}}, folder / "done.pt")

sys.argv = sys.argv[:1]
stage_main(main)()
"""


def command(
    folder: Path, processes: int, kind: str = "control", steps: int = 40, pause: float = 0.0, micro: int = 0
) -> list[str]:
    """What follows `python`."""
    folder.mkdir(exist_ok=True)
    script = folder / "training.py"
    script.write_text(TRAINING, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [*launch, str(script), str(folder), kind, str(steps), str(pause), str(micro)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "SPECMASKFOLEY_DEBUG": ""}


def start(folder: Path, processes: int, kind: str = "control", pause: float = 0.0, micro: int = 0):
    arguments = [sys.executable, *command(folder, processes, kind, pause=pause, micro=micro)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())


def finish(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=300)
    return told


def trained(folder: Path, processes: int, kind: str = "control", micro: int = 0) -> dict:
    if processes == 1:
        code, told = FORKS.run(command(folder, 1, kind, micro=micro), folder, environment())
    else:
        process = start(folder, processes, kind, micro=micro)
        told, code = finish(process), process.returncode
    assert code == 0, told
    return torch.load(folder / "done.pt", weights_only=True)


def assert_close(found: dict, expected: dict) -> None:
    """Sums in another order: the curves agree to 1e-4, the weights to 1e-3 of their size."""
    assert found["curves"].keys() == expected["curves"].keys()
    for name, points in expected["curves"].items():
        assert found["curves"][name] == [(step, pytest.approx(value, rel=1e-4)) for step, value in points], name
    for name, value in expected["weights"].items():
        difference = (found["weights"][name].float() - value.float()).norm()
        assert difference <= 1e-3 * value.float().norm() + 1e-6, name


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    one, two = trained(tmp_path / "one", 1), trained(tmp_path / "two", 2)
    assert_close(two, one)
    assert [path.name for path in (tmp_path / "two").glob("validated_by_*")] == ["validated_by_0"]
    losses = [value for _, value in one["curves"]["loss"]]
    assert losses[-1] != losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["specvqgan", "encodec"])
def test_two_processes_train_a_codec_with_its_codebooks_and_discriminator(tmp_path, kind):
    """A vector between two codes falls to the one or the other by its last bit, so the curves agree to a hundredth, and
    that of the discriminator, which soon tells all apart, only at first.
    """
    one, two = trained(tmp_path / "one", 1, kind), trained(tmp_path / "two", 2, kind)
    for name, count in (("reconstruction", 4), ("val_reconstruction", 2), ("discriminator", 1)):
        expected = [(step, pytest.approx(value, rel=1e-2)) for step, value in one["curves"][name][:count]]
        assert two["curves"][name][:count] == expected, name
    for counts in (name for name in one["weights"] if name.startswith("averages.") and name.endswith(".counts")):
        assert float(two["weights"][counts].sum()) == pytest.approx(float(one["weights"][counts].sum()), rel=1e-3)


@pytest.mark.slow
def test_parts_of_a_batch_train_as_the_whole(tmp_path):
    assert_close(trained(tmp_path / "parts", 1, micro=3), trained(tmp_path / "whole", 1))


def children(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """The launched processes by their rank; just forked, one still is what its launcher is."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = {c.environ().get("RANK"): c for c in psutil.Process(process.pid).children()}
        if all(str(rank) in found for rank in range(count)):
            return [found[str(rank)] for rank in range(count)]
        time.sleep(0.05)
    raise AssertionError("the processes did not start")


def steps_done(folder: Path) -> int:
    return max((int(path.stem[-8:]) for path in folder.glob("model-????????.pt")), default=0)


@pytest.mark.kill
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_loss_of_a_process_leaves_a_checkpoint_that_goes_on(tmp_path, how):
    undisturbed = trained(tmp_path / "undisturbed", 2)
    folder = tmp_path / "disturbed"
    process = start(folder, 2, pause=0.1)
    victim = children(process, 2)[1]
    deadline = time.monotonic() + 240
    while steps_done(folder) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(how)
    told = finish(process)
    assert process.returncode != 0
    done = steps_done(folder)
    assert 10 <= done < 40
    if how == signal.SIGKILL:
        assert f"another process of this training is gone at step {done}" in told, told
    else:
        assert f"terminated after step {done}" in told, told
    process = start(folder, 2)
    assert f"going on from step {done}" in finish(process)
    assert process.returncode == 0
    assert_close(torch.load(folder / "done.pt", weights_only=True), undisturbed)
