"""How codecs of both kinds learn: seeded and averaged codebooks, the optional terms, going on after a kill.

Shape letters: n clips, M mel bands, L mel frames, C code width, K codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu
from helpers.fitting import fit_on_cpu
from helpers.small_codec import COLUMN, FRAMES, KINDS, MELS, rows, small_codec, train_codec
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from specmaskfoley.codec.codebooks import codebook_usage
from specmaskfoley.codec.discriminator import Discriminator
from specmaskfoley.codec.objective import CodecObjective
from specmaskfoley.settings.generator import DISCRIMINATOR_FRAMES
from specmaskfoley.training.batches import Batch

CLIPS, CODES = 10, 12
ROWS = np.arange(4)
BOTH = pytest.mark.parametrize("kind", KINDS)
CPU = torch.device("cpu")
HALF = {kind: FRAMES // 2 // column for kind, column in COLUMN.items()}  # columns of half a clip


def step_of(made: CodecObjective, step: int, seed: int = 0, numbers: np.ndarray = ROWS) -> Batch:
    """What the loop passes to a loss."""
    mels = torch.from_numpy(made.train.take(numbers)["mel"])
    return {"mel": mels, **made.draw(len(numbers), step, generator(seed))}


def loss_of(made: CodecObjective, step: int) -> Tensor:
    return made.loss("codec", step_of(made, step), step, generator())[0]


def objective(kind: str = "specvqgan", **changes: Any) -> CodecObjective:
    """Of one codebook for all tokens, or of three that code one after the other."""
    torch.manual_seed(0)
    mels = torch.rand(CLIPS, MELS, FRAMES, generator=torch.Generator().manual_seed(1)) * 2 - 1
    settings = train_codec(**changes)
    return CodecObjective(small_codec(kind), settings, rows(mels), mels[:3], column=COLUMN[kind], device=CPU)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codebooks(made: CodecObjective) -> list[Tensor]:
    return [codes.detach().clone() for codes in made.codec.codebooks]


@torch.no_grad()
def left(made: CodecObjective, rows: np.ndarray = ROWS) -> list[Tensor]:
    """What is left before each codebook and after the last, (vectors, C) each, of whole clips: as a step sees it when
    the crop is a clip long."""
    mels = torch.from_numpy(made.train.take(rows)["mel"])[:, None]
    return [part.movedim(1, -1).flatten(0, -2) for part in made.codec.assign(made.codec.encode_latents(mels))[1]]


@BOTH
def test_codebooks_are_untouched_until_quantisation_begins_and_then_seeded_on_what_is_left(kind):
    made = objective(kind, quantize_after=3)
    before = codebooks(made)
    for step in (0, 1):
        _, scores = made.loss("codec", step_of(made, step, step), step, generator(step))
        made.after_step(step, generator(step))
        assert all(torch.equal(new, old) for new, old in zip(codebooks(made), before, strict=True))
        assert "perplexity" not in scores

    made.after_step(2, generator())
    parts = left(made, np.arange(CLIPS))
    power = [part.square().sum(1).mean() for part in parts]
    for level, (codes, old) in enumerate(zip(codebooks(made), before, strict=True)):
        assert power[level + 1] < 0.5 * torch.cdist(parts[level], old).amin(1).square().mean(), level
        assert power[level + 1] < 0.8 * parts[level].var(0, correction=0).sum(), level
        assert torch.cdist(codes, parts[level]).amin(1).max() < 1.0, level  # no code far from all vectors

    _, scores = made.loss("codec", step_of(made, 3, 3), 3, generator(3))
    assert scores["perplexity"] > 1


@BOTH
def test_seeded_averages_are_in_balance_with_a_batch(kind):
    """Counts add up to the vectors of one step, and stand for the codes as they are."""
    made = objective(kind, quantize_after=1)
    made.after_step(0, generator())
    for averages, codes in zip(made.averages, codebooks(made), strict=True):
        assert float(averages.counts.sum()) == pytest.approx(len(left(made)[0]), rel=1e-5)
        alive = averages.counts > 0
        means = averages.sums[alive] / averages.counts[alive, None]
        assert alive.sum() > CODES // 2
        assert (torch.cdist(means, codes[alive]).diagonal() < 0.5).all()


@BOTH
def test_codebooks_of_quantisation_from_the_start_are_seeded_after_the_first_step(kind):
    made = objective(kind, quantize_after=0)
    before = codebooks(made)
    made.loss("codec", step_of(made, 0), 0, generator())
    made.after_step(0, generator())
    assert not any(torch.equal(new, old) for new, old in zip(codebooks(made), before, strict=True))
    assert left(made, np.arange(CLIPS))[-1].norm(dim=1).mean() < 1.0


def prime(made: CodecObjective, count: float) -> None:
    """Averages that stand for the codes as they are."""
    for averages, codes in zip(made.averages, codebooks(made), strict=True):
        averages.counts.fill_(count)
        averages.sums.copy_(count * codes)


@BOTH
def test_every_codebook_moves_as_computed_by_hand(kind):
    made = objective(kind, codebook_decay=0.9)
    prime(made, 2.0)
    vectors, expected = left(made)[0].numpy().astype(np.float64), []
    for codes in (book.numpy().astype(np.float64) for book in codebooks(made)):
        counts, sums = np.full(CODES, 0.9 * 2.0), 0.9 * 2.0 * codes
        for row, vector in enumerate(vectors):
            code = ((vector - codes) ** 2).sum(1).argmin()
            counts[code] += 0.1
            sums[code] += 0.1 * vector
            vectors[row] = vector - codes[code]
        expected.append((counts, sums))

    made.loss("codec", step_of(made, 1), 1, generator())
    made.after_step(1, generator())
    for averages, codes, (counts, sums) in zip(made.averages, codebooks(made), expected, strict=True):
        np.testing.assert_allclose(averages.counts, counts, rtol=1e-5)
        np.testing.assert_allclose(averages.sums, sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(codes, sums / counts[:, None], rtol=1e-4, atol=1e-5)


@BOTH
def test_dead_codes_start_again_at_what_the_last_codebook_codes(kind):
    made = objective(kind, dead_code_threshold=0.5)
    prime(made, 3.0)
    averages, codes = made.averages[-1], made.codec.codebooks[-1]
    for code in (2, 7):
        codes.data[code] = 1000.0
        averages.counts[code], averages.sums[code] = 0.1, 100.0

    made.loss("codec", step_of(made, 1), 1, generator())
    before = left(made)
    made.after_step(1, generator())
    # By differences: through products of vectors this long, equal ones seem 1e-4 apart.
    vectors = before[len(made.codec.codebooks) - 1]
    distance = (codebooks(made)[-1][:, None] - vectors[None]).norm(dim=-1).amin(1)
    assert (distance[[2, 7]] < 1e-4).all()
    assert (averages.counts >= 0.5).all()
    torch.testing.assert_close(averages.sums, codebooks(made)[-1] * averages.counts[:, None])


def test_several_dead_codes_start_again_at_vectors_of_their_own():
    made = objective(dead_code_threshold=0.5)
    prime(made, 3.0)
    averages, before, vectors = made.averages[0], codebooks(made)[0], left(made)[0]
    averages.counts[3:] = 0.0
    made.loss("codec", step_of(made, 1), 1, generator())
    made.after_step(1, generator(3))
    picked = torch.randint(len(vectors), (CODES - 3,), generator=generator(3))
    # Dead codes may still gain counts in the step that revives them: those at or above the threshold stay.
    dead = averages.counts[3:] == 1.0
    assert dead.sum() >= 3
    (codes,) = codebooks(made)
    torch.testing.assert_close(codes[3:][dead], vectors[picked[: int(dead.sum())]])
    assert not torch.equal(codes[:3], before[:3])


@BOTH
def test_scores_of_codes_are_means_over_the_codebooks(kind):
    made = objective(kind, steps=4)
    made.after_step(0, generator())
    with torch.no_grad():
        tokens = made.codec.tokens(made.valid[:, None])
        found = made.validate(generator())
    parts = [tokens[:, level] for level in range(3)] if kind == "encodec" else [tokens]
    shares, perplexities = zip(*(codebook_usage(part, CODES) for part in parts), strict=True)
    assert found["codes_used"] == pytest.approx(np.mean(shares))
    assert found["perplexity"] == pytest.approx(np.mean(perplexities))
    scores = made.loss("codec", step_of(made, 1), 1, generator())[1]
    assert 1 < scores["perplexity"] <= CODES


@BOTH
def test_parts_of_a_step_add_up_to_the_whole(kind):
    whole, parts = objective(kind), objective(kind)
    for made in (whole, parts):
        made.after_step(0, generator())
    batch = step_of(whole, 1)
    loss, _ = whole.loss("codec", batch, 1, generator())
    halves = [{name: values[rows] for name, values in batch.items()} for rows in (slice(1), slice(1, 4))]
    torch.testing.assert_close(sum(parts.loss("codec", half, 1, generator())[0] for half in halves), loss)
    for made in (whole, parts):
        made.after_step(1, generator())
    for found, expected in zip(codebooks(parts), codebooks(whole), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@BOTH
def test_the_decoder_gets_the_codes_and_not_the_latents(kind):
    made = objective(kind)
    made.after_step(0, generator())
    seen: list[Tensor] = []
    decode = made.codec.decode_latents
    made.codec.decode_latents = lambda codes: seen.append(codes) or decode(codes)  # type: ignore[method-assign]
    batch = step_of(made, 1)
    loss_of(made, 1)
    codes = made.codec.lookup(made.codec.tokens(batch["mel"][:, None]))
    torch.testing.assert_close(seen[0], codes, atol=1e-5, rtol=1e-4)


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


@BOTH
def test_a_step_never_waits_for_the_device(kind):
    """On a GPU a single wait a step leaves it idle while the host catches up."""
    made = objective(kind, adversarial_weight=0.5, dead_code_threshold=0.5, crop_columns=HALF[kind])
    made.after_step(0, generator())
    for averages in made.averages:
        averages.counts[:5] = 0.0
    batch = step_of(made, 1)
    before = codebooks(made)
    with Waits() as waits:
        for group in ("codec", "discriminator"):
            loss, _ = made.loss(group, batch, 1, generator())
            loss.backward()
        made.after_step(1, generator())
    assert not any(torch.equal(new, old) for new, old in zip(codebooks(made), before, strict=True))
    assert waits.found == []


@BOTH
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_on_a_gpu_has_its_tensors_there(kind, precision):
    """The forward passes and the codebooks: where each tensor lies, and that none is read by the host."""
    codec, data = small_codec(kind), rows(torch.zeros(4, MELS, FRAMES))
    settings = train_codec(adversarial_weight=0.5, dead_code_threshold=0.5, crop_columns=HALF[kind])
    with fake_gpu():
        mels = torch.empty(4, MELS, FRAMES)
        codec = on_gpu(codec)
        made = CodecObjective(codec, settings, data, mels, column=COLUMN[kind], device=CUDA, precision=precision)
        # The values of a fake tensor cannot be listed.
        batch: Batch = {**made.draw(4, 1, torch.Generator()), "start": np.zeros(4, np.int64), "mel": mels}
        with Watch(strict=False):
            for group in ("codec", "discriminator"):
                loss, seen = made.loss(group, batch, 1, torch.Generator())
                assert {loss.device, *(value.device for value in seen.values())} == {CUDA}
            made.after_step(1, torch.Generator())
        assert {averages.sums.device for averages in made.averages} == {CUDA}
        assert {codes.device for codes in made.codec.codebooks} == {CUDA}


@BOTH
def test_codebooks_learn_without_a_gradient(kind):
    made = objective(kind, commitment_weight=0.0)
    loss_of(made, 1).backward()
    learnt = {id(p) for p in made.groups()["codec"]}
    assert not learnt & {id(codes) for codes in made.codec.codebooks}
    assert all(codes.grad is None for codes in made.codec.codebooks)
    # Straight through: the encoder gets the decoder's gradient past the codebooks.
    assert all(parameter.grad.abs().max() > 0 for parameter in made.codec.encoder.parameters())
    assert {id(p) for p in made.codec.encoder.parameters()} <= learnt


@BOTH
def test_each_term_has_its_weight_in_the_loss(kind):
    def loss(**weights: float) -> float:
        plain = {"commitment_weight": 0.0, "squared_weight": 0.0} | weights
        return loss_of(objective(kind, **plain), 1).item()

    made = objective(kind, commitment_weight=0.0, squared_weight=0.0)
    bare, scores = made.loss("codec", step_of(made, 1), 1, generator())
    assert bare.item() == pytest.approx(scores["reconstruction"].item())
    parts = [float(part.square().mean()) for part in left(made)[1:]]
    assert scores["commitment"].item() == pytest.approx(np.mean(parts), rel=1e-4)
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


def test_the_discriminator_judges_as_few_frames_as_the_settings_allow():
    judge = Discriminator(width=4)
    assert judge(torch.zeros(1, 1, 80, DISCRIMINATOR_FRAMES)).shape[-1] == 1
    with pytest.raises(RuntimeError):
        judge(torch.zeros(1, 1, 80, DISCRIMINATOR_FRAMES - 1))


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


@BOTH
def test_crops_are_as_long_as_asked_and_never_longer_than_a_clip(kind):
    seen: list[tuple[int, ...]] = []
    for columns in (1, 2, 99):
        made = objective(kind, crop_columns=columns)
        encode = made.codec.encode_latents
        made.codec.encode_latents = lambda x, run=encode: seen.append(tuple(x.shape)) or run(x)  # type: ignore[method-assign]
        loss_of(made, 1)
    assert seen == [(4, 1, MELS, frames) for frames in (COLUMN[kind], 2 * COLUMN[kind], FRAMES)]


@BOTH
def test_training_lowers_the_reconstruction_error(tmp_path, kind):
    torch.manual_seed(0)
    tones = torch.full((CLIPS, MELS, FRAMES), -1.0)
    for clip in range(CLIPS):
        tones[clip, 3 * clip : 3 * clip + 3] = 1.0
    settings = train_codec(steps=60, quantize_after=20)
    made = CodecObjective(small_codec(kind), settings, rows(tones), tones, column=COLUMN[kind], device=CPU)
    history = fit_on_cpu(made, made.train, settings.optim, name="codec", scratch=tmp_path)
    assert history.last()["val_reconstruction"] < 0.6 * history.curves["val_reconstruction"][0][1]
    assert history.last()["val_perplexity"] > 2


class Killed(BaseException):
    pass


@BOTH
@pytest.mark.parametrize("killed_at", [4, 7])
def test_resume_equals_uninterrupted_with_codebook_averages_and_discriminator(tmp_path, killed_at, kind):
    settings = {
        "quantize_after": 3,
        "adversarial_weight": 0.5,
        "adversarial_after": 2,
        "dead_code_threshold": 0.5,
        "crop_columns": HALF[kind],
    }

    def run(made: CodecObjective, folder: str) -> Any:
        scratch = tmp_path / folder
        return fit_on_cpu(made, made.train, made.settings.optim, name="codec", scratch=scratch)

    straight = objective(kind, **settings)
    history = run(straight, "straight")

    killed = objective(kind, **settings)
    original = killed.after_step

    def after_step(step: int, given: torch.Generator) -> None:
        if step == killed_at:
            raise Killed
        original(step, given)

    killed.after_step = after_step  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(killed, "killed")
    resumed = objective(kind, **settings)
    assert run(resumed, "killed").curves == history.curves
    for name, value in straight.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[name]), name
