"""How the codec learns: the seeded and averaged codebook, the optional terms, going on after a kill.

Shape letters: n clips, M mel bands, L mel frames, C code width, K codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu
from helpers.fitting import fit_on_cpu
from helpers.small_codec import CODEC, WHOLE, rows, train_codec
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from specmaskfoley.codec.network import Codec
from specmaskfoley.codec.objective import CodecObjective
from specmaskfoley.training.batches import Batch

MELS, FRAMES, CLIPS = 32, 64, 10
ROWS = np.arange(4)


def step_of(made: CodecObjective, step: int, seed: int = 0, numbers: np.ndarray = ROWS) -> Batch:
    """What the loop passes to a loss."""
    mels = torch.from_numpy(made.train.take(numbers)["mel"])
    return {"mel": mels, **made.draw(len(numbers), step, generator(seed))}


def loss_of(made: CodecObjective, step: int) -> Tensor:
    return made.loss("codec", step_of(made, step), step, generator())[0]


def objective(**changes: Any) -> CodecObjective:
    torch.manual_seed(0)
    mels = torch.rand(CLIPS, MELS, FRAMES, generator=torch.Generator().manual_seed(1)) * 2 - 1
    settings = train_codec(**changes)
    return CodecObjective(
        Codec(CODEC),
        settings,
        rows(mels),
        mels[:3],
        patch=16,
        device=torch.device("cpu"),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codebook(made: CodecObjective) -> Tensor:
    return made.codec.quantize.embedding.weight.detach().clone()


@torch.no_grad()
def latents(made: CodecObjective, rows: np.ndarray = ROWS) -> Tensor:
    """(vectors, C) of whole clips, which is what a step sees when the crop is a clip long."""
    return (
        made.codec.encode_latents(torch.from_numpy(made.train.take(rows)["mel"])[:, None])
        .permute(0, 2, 3, 1)
        .flatten(0, 2)
    )


def test_codebook_is_untouched_until_quantisation_begins_and_then_seeded():
    made = objective(quantize_after=3)
    before = codebook(made)
    for step in (0, 1):
        _, scores = made.loss("codec", step_of(made, step, step), step, generator(step))
        made.after_step(step, generator(step))
        assert torch.equal(codebook(made), before)
        assert "perplexity" not in scores

    made.after_step(2, generator())
    vectors = latents(made, np.arange(CLIPS))
    nearest = torch.cdist(vectors, codebook(made)).amin(1).square().mean()
    assert nearest < 0.5 * torch.cdist(vectors, before).amin(1).square().mean()
    assert nearest < 0.5 * vectors.var(0, correction=0).sum()
    assert torch.cdist(codebook(made), vectors).amin(1).max() < 1.0  # no code far from all vectors

    _, scores = made.loss("codec", step_of(made, 3, 3), 3, generator(3))
    assert scores["perplexity"] > 1


def test_seeded_averages_are_in_balance_with_a_batch():
    """Counts add up to the vectors of one step, and stand for the codes as they are."""
    made = objective(quantize_after=1)
    made.after_step(0, generator())
    vectors_a_step = 4 * (MELS // 16) * WHOLE
    assert float(made.averages.counts.sum()) == pytest.approx(vectors_a_step, rel=1e-5)
    alive = made.averages.counts > 0
    means = made.averages.sums[alive] / made.averages.counts[alive, None]
    assert alive.sum() > CODEC.codebook_size // 2
    assert (torch.cdist(means, codebook(made)[alive]).diagonal() < 0.5).all()


def test_codebook_of_quantisation_from_the_start_is_seeded_after_the_first_step():
    made = objective(quantize_after=0)
    before = codebook(made)
    made.loss("codec", step_of(made, 0), 0, generator())
    made.after_step(0, generator())
    assert not torch.equal(codebook(made), before)
    assert torch.cdist(latents(made, np.arange(CLIPS)), codebook(made)).amin(1).mean() < 1.0


def test_averages_move_as_computed_by_hand():
    made = objective(codebook_decay=0.9)
    counts, sums = np.full(CODEC.codebook_size, 2.0), codebook(made).numpy() * 2.0
    made.averages.counts.fill_(2.0)
    made.averages.sums.copy_(torch.from_numpy(sums))

    vectors, codes = latents(made).numpy().astype(np.float64), codebook(made).numpy().astype(np.float64)
    new_counts, new_sums = 0.9 * counts, 0.9 * sums
    for vector in vectors:
        code = ((vector - codes) ** 2).sum(1).argmin()
        new_counts[code] += 0.1
        new_sums[code] += 0.1 * vector

    made.loss("codec", step_of(made, 1), 1, generator())
    made.after_step(1, generator())
    np.testing.assert_allclose(made.averages.counts, new_counts, rtol=1e-5)
    np.testing.assert_allclose(made.averages.sums, new_sums, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codebook(made), new_sums / new_counts[:, None], rtol=1e-4, atol=1e-5)


def test_dead_codes_start_again_at_vectors_of_the_batch():
    made = objective(dead_code_threshold=0.5)
    made.averages.counts.fill_(3.0)
    made.averages.sums.copy_(3.0 * codebook(made))
    for code in (2, 7):
        made.codec.quantize.embedding.weight.data[code] = 1000.0
        made.averages.counts[code], made.averages.sums[code] = 0.1, 100.0

    made.loss("codec", step_of(made, 1), 1, generator())
    made.after_step(1, generator())
    # By differences: through products of vectors this long, equal ones seem 1e-4 apart.
    distance = (codebook(made)[:, None] - latents(made)[None]).norm(dim=-1).amin(1)
    assert (distance[[2, 7]] < 1e-4).all()
    assert (made.averages.counts >= 0.5).all()
    torch.testing.assert_close(made.averages.sums, codebook(made) * made.averages.counts[:, None])


def test_several_dead_codes_start_again_at_vectors_of_their_own():
    made = objective(dead_code_threshold=0.5)
    made.averages.counts.fill_(3.0)
    made.averages.sums.copy_(3.0 * codebook(made))
    made.averages.counts[3:] = 0.0
    before = codebook(made)
    made.loss("codec", step_of(made, 1), 1, generator())
    made.after_step(1, generator(3))
    picked = torch.randint(4 * (MELS // 16) * WHOLE, (CODEC.codebook_size - 3,), generator=generator(3))
    # Dead codes may still gain counts in the step that revives them: those at or above the threshold stay.
    dead = made.averages.counts[3:] == 1.0
    assert dead.sum() >= 3
    torch.testing.assert_close(codebook(made)[3:][dead], latents(made)[picked[: int(dead.sum())]])
    assert not torch.equal(codebook(made)[:3], before[:3])


class Waits(TorchDispatchMode):
    """Operations whose result the host has to wait for, or whose size depends on values."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "is_nonzero", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        mask = name in ("index", "index_put", "index_put_") and any(
            place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1]
        )
        if mask or any(name.startswith(bad) for bad in self.names):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_waits_are_seen():
    with Waits() as waits:
        values = torch.ones(3)
        values[values > 0] = 2.0
        float(values.sum())
        torch.bincount(torch.ones(3, dtype=torch.int64))
    assert len(waits.found) == 3


def test_a_step_never_waits_for_the_device():
    """On a GPU a single wait a step leaves it idle while the host catches up."""
    made = objective(adversarial_weight=0.5, dead_code_threshold=0.5, crop_columns=2)
    made.after_step(0, generator())
    made.averages.counts[:5] = 0.0
    batch = step_of(made, 1)
    before = codebook(made)
    with Waits() as waits:
        for group in ("codec", "discriminator"):
            loss, _ = made.loss(group, batch, 1, generator())
            loss.backward()
        made.after_step(1, generator())
    assert not torch.equal(codebook(made), before)
    assert waits.found == []


def test_a_step_on_a_gpu_has_its_tensors_there():
    """The forward passes and the codebook: where each tensor lies, and that none is read by the host."""
    codec, data = Codec(CODEC), rows(torch.zeros(4, MELS, FRAMES))
    settings = train_codec(adversarial_weight=0.5, dead_code_threshold=0.5, crop_columns=2)
    with fake_gpu():
        mels = torch.empty(4, MELS, FRAMES)
        made = CodecObjective(on_gpu(codec), settings, data, mels, patch=16, device=CUDA)
        # The values of a fake tensor cannot be listed.
        batch: Batch = {**made.draw(4, 1, torch.Generator()), "start": np.zeros(4, np.int64), "mel": mels}
        with Watch(strict=False):
            for group in ("codec", "discriminator"):
                loss, seen = made.loss(group, batch, 1, torch.Generator())
                assert {loss.device, *(value.device for value in seen.values())} == {CUDA}
            made.after_step(1, torch.Generator())
        assert made.averages.sums.device == made.codec.quantize.embedding.weight.device == CUDA


def test_the_codebook_learns_without_a_gradient():
    made = objective(commitment_weight=0.0)
    loss, _ = made.loss("codec", step_of(made, 1), 1, generator())
    loss.backward()
    learnt = {id(p) for p in made.groups()["codec"]}
    assert id(made.codec.quantize.embedding.weight) not in learnt
    assert made.codec.quantize.embedding.weight.grad is None
    # Straight through: the encoder gets the decoder's gradient past the codebook.
    assert made.codec.encoder.conv_in.weight.grad.abs().max() > 0


def test_each_term_has_its_weight_in_the_loss():
    def loss(**weights: float) -> float:
        plain = {"commitment_weight": 0.0, "squared_weight": 0.0} | weights
        return loss_of(objective(**plain), 1).item()

    made = objective(commitment_weight=0.0, squared_weight=0.0)
    bare, scores = made.loss("codec", step_of(made, 1), 1, generator())
    assert bare.item() == pytest.approx(scores["reconstruction"].item())
    assert loss(commitment_weight=2.0) - bare.item() == pytest.approx(2.0 * scores["commitment"].item(), rel=1e-4)
    for name in ("squared_weight", "adversarial_weight"):
        once, twice = loss(**{name: 1.0}) - bare.item(), loss(**{name: 2.0}) - bare.item()
        assert abs(once) > 1e-3, name
        assert twice == pytest.approx(2 * once, rel=1e-3), name


def test_adversarial_term_waits_for_its_step():
    plain = loss_of(objective(), 4)
    waiting = objective(adversarial_weight=1.0, adversarial_after=5)
    assert torch.equal(waiting.loss("codec", step_of(waiting, 4), 4, generator())[0], plain)
    assert waiting.loss("discriminator", step_of(waiting, 4), 4, generator())[0].item() == 0.0
    assert not torch.equal(waiting.loss("codec", step_of(waiting, 5), 5, generator())[0], plain)
    assert waiting.loss("discriminator", step_of(waiting, 5), 5, generator())[0].item() > 0.0


def test_the_codec_is_rewarded_for_what_the_discriminator_takes_as_real():
    made = objective(adversarial_weight=2.0)
    assert made.discriminator is not None
    judged: list[Tensor] = []
    hook = made.discriminator.register_forward_hook(lambda _, args, output: judged.append(output))
    loss = made.loss("codec", step_of(made, 1), 1, generator())[0]
    hook.remove()
    plain = loss_of(objective(), 1)
    assert (loss - plain).item() == pytest.approx(-2.0 * judged[0].mean().item(), rel=1e-4)


def test_the_discriminator_learns_to_tell_sound_from_its_copy():
    made = objective(adversarial_weight=1.0)
    judge = made.discriminator
    assert judge is not None
    optimizer = torch.optim.AdamW(made.groups()["discriminator"], lr=1e-3)
    judged: list[Tensor] = []
    for _ in range(8):
        with torch.no_grad():
            made.loss("codec", step_of(made, 1), 1, generator())
        judged.clear()
        hook = judge.register_forward_hook(lambda _, args, output: judged.append(output.detach()))
        loss = made.loss("discriminator", step_of(made, 1), 1, generator())[0]
        hook.remove()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, copied = judged[0].chunk(2)
    assert real.mean() > copied.mean() + 0.5


def test_adversarial_training_moves_the_discriminator_and_the_codec_apart(tmp_path):
    made = objective(adversarial_weight=1.0, adversarial_after=2, steps=4)
    before = {name: value.clone() for name, value in made.modules["discriminator"].state_dict().items()}
    fit_on_cpu(made, made.train, made.settings.optim, name="codec", scratch=tmp_path)
    assert all(not torch.equal(made.modules["discriminator"].state_dict()[name], v) for name, v in before.items())

    # The discriminator's own loss is about the codec's output, but does not train the codec.
    made.codec.zero_grad()
    made.loss("codec", step_of(made, 3), 3, generator())
    made.loss("discriminator", step_of(made, 3), 3, generator())[0].backward()
    assert all(p.grad is None for p in made.codec.parameters())


def test_crops_are_as_long_as_asked_and_never_longer_than_a_clip():
    seen: list[tuple[int, ...]] = []
    for columns in (1, 2, 99):
        made = objective(crop_columns=columns)
        made.codec.encoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
        made.loss("codec", step_of(made, 1), 1, generator())
    assert seen == [(4, 1, MELS, 16), (4, 1, MELS, 32), (4, 1, MELS, FRAMES)]


def test_training_lowers_the_reconstruction_error(tmp_path):
    torch.manual_seed(0)
    tones = torch.full((CLIPS, MELS, FRAMES), -1.0)
    for clip in range(CLIPS):
        tones[clip, 3 * clip : 3 * clip + 3] = 1.0
    settings = train_codec(steps=60, quantize_after=20)
    made = CodecObjective(Codec(CODEC), settings, rows(tones), tones, patch=16, device=torch.device("cpu"))
    history = fit_on_cpu(made, made.train, settings.optim, name="codec", scratch=tmp_path)
    assert history.last()["val_reconstruction"] < 0.6 * history.curves["val_reconstruction"][0][1]
    assert history.last()["val_perplexity"] > 2


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [4, 7])
def test_resume_equals_uninterrupted_with_codebook_averages_and_discriminator(tmp_path, killed_at):
    settings = {
        "quantize_after": 3,
        "adversarial_weight": 0.5,
        "adversarial_after": 2,
        "dead_code_threshold": 0.5,
        "crop_columns": 2,
    }

    def run(made: CodecObjective, folder: str) -> Any:
        scratch = tmp_path / folder
        return fit_on_cpu(made, made.train, made.settings.optim, name="codec", scratch=scratch)

    straight = objective(**settings)
    history = run(straight, "straight")

    killed = objective(**settings)
    original = killed.after_step

    def after_step(step: int, given: torch.Generator) -> None:
        if step == killed_at:
            raise Killed
        original(step, given)

    killed.after_step = after_step  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(killed, "killed")
    resumed = objective(**settings)
    assert run(resumed, "killed").curves == history.curves
    for name, value in straight.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[name]), name
