"""MAGNeT against numbers that AudioCraft gave for weights made by rule; see test_golden.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import Golden, assert_golden, assert_summary, golden_input, golden_tensor
from torch import Tensor

from specmaskfoley.backbone.magnet.decoding import OverlappingSpans
from specmaskfoley.backbone.magnet.masking import SpanMasks, starts_by_percentage
from specmaskfoley.backbone.magnet.network import Context, MagnetNetwork, Words
from specmaskfoley.backbone.role import Inputs
from specmaskfoley.settings import Decoding, Magnet, TokenGrid

STAGES = range(4)


def build(golden: Golden, name: str, columns: int, arrangement: str = "nonoverlap") -> MagnetNetwork:
    config = golden.spec(f"{name}_manifest")["config"]
    settings = Magnet(
        kind="magnet",
        codebooks=config["n_q"],
        depth=config["num_layers"],
        width=config["dim"],
        heads=config["num_heads"],
        mlp_width=config["dim"] * config["hidden_scale"],
        window=config["subcodes_context"],
        span=config["span_len"],
        arrangement=arrangement,
    )
    grid = TokenGrid(config["n_q"], columns, 320)
    network = MagnetNetwork(settings, grid=grid, codes=config["card"], prompt_width=config["t5_dim"])
    network.load_official(golden.weights(name), "golden weights")
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiny(golden: Golden) -> MagnetNetwork:
    return build(golden, "magnet_lm_tiny", 100)


@pytest.fixture(scope="module")
def small(golden: Golden) -> Iterator[MagnetNetwork]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.init, "trunc_normal_", lambda weight, **_: weight)  # seconds, of 420 M numbers
        yield build(golden, "magnet_lm_small", 500)


def as_official(network: MagnetNetwork, inputs: Inputs, hidden: Tensor, lengths: list[int]) -> Inputs:
    """What upstream's blocks read: rows of zeros behind the end of a text take their share of the attention."""
    source = network.prompt(hidden) * within(lengths, hidden.shape[1])[..., None]
    visible = torch.ones(len(source), 1, source.shape[1], dtype=torch.bool)
    context = Context(network._window(inputs.level), Words(source, visible, slice(0, len(source))))
    return inputs._replace(contexts=[context] * len(network.blocks))


def within(lengths: list[int], count: int) -> Tensor:
    """(B, count) bool"""
    return torch.arange(count) < torch.tensor(lengths)[:, None]


def both(x: Tensor) -> Tensor:
    """Conditional rows, and the same again."""
    return torch.cat([x, x])


def at_stage(network: MagnetNetwork, tokens: Tensor, chosen: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, N) and mask (B, N) of a stage's pass: its own codebook masked where chosen, later ones everywhere."""
    masked = torch.zeros_like(tokens, dtype=torch.bool)
    masked[:, stage], masked[:, stage + 1 :] = chosen, True
    return tokens.flatten(1), masked.flatten(1)


class Recorded:
    """The recorded inputs of the passes on a network's stages, and what came out."""

    def __init__(self, golden: Golden, name: str, prefix: str) -> None:
        self.golden, self.name = golden, name
        self.spec, self.arrays, self.inputs = golden.spec(name), golden.arrays(name), golden.inputs(name)
        settings = self.spec["inputs"]
        self.lengths: list[int] = settings["text_lengths"]
        self.tokens = self.inputs[f"{prefix}tokens"]
        self.chosen = self.inputs[f"{prefix}mask"] < settings[f"{prefix}mask_threshold"]

    def embedded(self, network: MagnetNetwork, stage: int) -> Inputs:
        """Rows with text, then rows without, as upstream."""
        hidden = self.inputs["t5_hidden"]
        tokens, masked = at_stage(network, both(self.tokens), both(self.chosen), stage)
        inputs = network.embed(tokens, masked, both(hidden), torch.ones(len(tokens), dtype=torch.bool), level=stage)
        return as_official(network, inputs, both(hidden), [*self.lengths, 0, 0])

    def meets(self, output: str, found: Tensor) -> None:
        record = self.spec["outputs"][output]
        assert_summary(found, record["summary"])
        golden, axis = self.arrays[record["npz"]], found.dim() - 2
        positions = torch.tensor(record.get("positions", range(golden.shape[axis])))
        assert_golden(found.index_select(axis, positions), golden)


# ---- the network ----


def test_deterministic_weights_have_the_recorded_values(golden: Golden) -> None:
    for entry in golden.spec("magnet_rule_check")["entries"]:
        values = golden_tensor(entry["key"], entry["shape"]).flatten()
        np.testing.assert_allclose(values[: len(entry["first"])], entry["first"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["magnet_lm_tiny", "magnet_lm_small"])
def test_parameters_are_those_of_the_manifest(golden: Golden, name: str) -> None:
    manifest = golden.spec(f"{name}_manifest")
    with torch.device("meta"):
        config = manifest["config"]
        sizes = {"depth": config["num_layers"], "width": config["dim"], "heads": config["num_heads"]}
        settings = Magnet(kind="magnet", codebooks=4, mlp_width=4 * config["dim"], **sizes)
        grid = TokenGrid(4, 500, 320)
        network = MagnetNetwork(settings, grid=grid, codes=config["card"], prompt_width=config["t5_dim"])
        network.load_official({key: torch.empty(shape) for key, shape in manifest["keys"].items()}, "manifest")
    assert sum(p.numel() for p in network.parameters()) == manifest["n_params"]
    parts = manifest.get("params_by_part", {"one_layer": sum(p.numel() for p in network.blocks[0].parameters())})
    assert sum(p.numel() for p in network.blocks[0].parameters()) == parts["one_layer"]


@pytest.mark.parametrize("stage", STAGES)
@torch.inference_mode()
def test_tiny_logits(golden: Golden, tiny: MagnetNetwork, stage: int) -> None:
    recorded = Recorded(golden, "magnet_sampling", "forward_")
    found = tiny(recorded.embedded(tiny, stage))
    recorded.meets(f"forward_stage{stage}", found)


@pytest.mark.parametrize("stage", STAGES)
@torch.inference_mode()
def test_tiny_logits_of_texts_on_their_own(golden: Golden, tiny: MagnetNetwork, stage: int) -> None:
    """Without padding nothing differs from upstream: the longest text, and no text."""
    recorded = Recorded(golden, "magnet_sampling", "forward_")
    tokens, masked = at_stage(tiny, recorded.tokens, recorded.chosen, stage)
    hidden = recorded.inputs["t5_hidden"]
    expected = recorded.arrays[f"forward_stage{stage}"]
    for use, row in ((True, 0), (False, 2)):
        inputs = tiny.embed(tokens, masked, hidden, torch.tensor([use, use]), level=stage)
        assert_golden(tiny(inputs)[:1, : expected.shape[1]], expected[row : row + 1])
    assert_golden(tiny(inputs)[:, : expected.shape[1]], expected[2:])


@pytest.mark.official
@pytest.mark.parametrize("stage", STAGES)
@torch.inference_mode()
def test_small_logits(golden: Golden, small: MagnetNetwork, stage: int) -> None:
    recorded = Recorded(golden, "magnet_lm", "")
    inputs = recorded.embedded(small, stage)
    outputs, trace = recorded.spec["outputs"], recorded.spec["trace"].get(f"stage{stage}")
    summed = inputs.x - small.positions
    for output, found in ((f"embedding_sum_stage{stage}", summed), (f"with_positions_stage{stage}", inputs.x)):
        if output in outputs:
            recorded.meets(output, found[:2])
    x = inputs.x
    for number, (block, context) in enumerate(zip(small.blocks, inputs.contexts, strict=True), start=1):
        x = block(x, context)
        if number == 1 and f"block1_stage{stage}" in outputs:
            recorded.meets(f"block1_stage{stage}", x)
        if trace is not None and f"block{number}" in trace:
            assert_summary(x, trace[f"block{number}"])
    recorded.meets(f"logits_stage{stage}", small.logits(x, stage))
    if f"all_heads_stage{stage}" in outputs:
        record = outputs[f"all_heads_stage{stage}"]
        heads = torch.stack([small.logits(x, level) for level in STAGES], 1)
        assert_summary(heads, record["summary"])
        assert_golden(heads[:1, :, record["positions"]], recorded.arrays[record["npz"]])


@pytest.mark.official
@torch.inference_mode()
def test_small_positions_and_source(golden: Golden, small: MagnetNetwork) -> None:
    recorded = Recorded(golden, "magnet_lm", "")
    recorded.meets("positional", small.positions)
    (context, *_) = recorded.embedded(small, 0).contexts
    assert_summary(context.words.source, recorded.spec["outputs"]["cross_source"]["summary"])
    stored = recorded.arrays["cross_source"]
    assert_golden(context.words.source[:2, :, : stored.shape[2]], stored)


@torch.inference_mode()
def test_positions_of_the_public_width(golden: Golden) -> None:
    settings = Magnet(kind="magnet", codebooks=1, depth=1, width=1024, heads=1, mlp_width=1)
    network = MagnetNetwork(settings, grid=TokenGrid(1, 500, 320), codes=1, prompt_width=1)
    Recorded(golden, "magnet_lm", "").meets("positional", network.positions)


@torch.inference_mode()
def test_source_of_texts(golden: Golden) -> None:
    """The mask lies behind the projection, so that what is no text is exactly zero in spite of the bias."""
    spec, arrays = golden.spec("magnet_text"), golden.arrays("magnet_text")
    own = "condition_provider.conditioners.description.output_proj."
    weights = golden.weights("magnet_lm_small", [own])
    settings = Magnet(kind="magnet", codebooks=1, depth=1, width=1024, heads=1, mlp_width=1)
    network = MagnetNetwork(settings, grid=TokenGrid(1, 1, 320), codes=1, prompt_width=1024)
    network.prompt.load_state_dict({name.removeprefix(own): value for name, value in weights.items()})
    hidden, lengths = golden.inputs("magnet_text")["t5_hidden"], spec["inputs"]["text_lengths"]
    real = within(lengths, hidden.shape[1])
    assert real.long().tolist() == spec["outputs"]["source"]["mask"]
    source, visible = network._listen(hidden * real[..., None], None, None)
    assert not source[:, 0].any()
    record = spec["outputs"]["source"]
    assert_summary(source[:, 1:], record["summary"])
    assert_golden(source[:, 1:, : arrays["source"].shape[2]], arrays["source"])
    assert torch.equal(visible[1, :, 0, 1:], real)


# ---- training ----


@pytest.mark.parametrize("columns", [500, 100])
def test_masks(golden: Golden, columns: int) -> None:
    spec, arrays, inputs = (
        golden.spec("magnet_training"),
        golden.arrays("magnet_training"),
        golden.inputs("magnet_training"),
    )
    assert starts_by_percentage(columns, 3) == spec["mean_maskrate_to_u"][str(columns)]
    time, order = inputs[f"time_{columns}"], inputs[f"order_{columns}"]
    names = spec["masks"][str(columns)]["npz"]
    for span in (3, 1):
        found = SpanMasks(columns, span).draw(time, order)
        assert np.array_equal(found, arrays[names[f"span_len_{span}"]])


@pytest.mark.parametrize("stage", STAGES)
def test_loss_and_gradient(golden: Golden, stage: int) -> None:
    spec, arrays, inputs = (
        golden.spec("magnet_training"),
        golden.arrays("magnet_training"),
        golden.inputs("magnet_training"),
    )
    network = build(golden, "magnet_lm_tiny", 100).requires_grad_(True)
    chosen = SpanMasks(100, 3).draw(inputs["loss_time"], inputs["loss_order"])
    assert np.array_equal(chosen, arrays["loss_mask"])
    hidden, tokens = inputs["t5_hidden"], inputs["loss_tokens"]
    seen, masked = at_stage(network, tokens, chosen, stage)
    embedded = network.embed(seen, masked, hidden, torch.tensor([True, True]), level=stage)
    with torch.no_grad():  # upstream's loss was taken with the projection frozen
        embedded = as_official(network, embedded, hidden, spec["inputs"]["text_lengths"])._replace(x=embedded.x)
    loss = F.cross_entropy(network(embedded)[chosen], tokens[:, stage][chosen])
    loss.backward()
    gradients = [p.grad.norm() for p in network.parameters() if p.grad is not None]
    expected = spec["loss"][str(stage)]
    assert loss.item() == pytest.approx(expected["ce"], rel=1e-5)
    assert float(torch.stack(gradients).norm()) == pytest.approx(expected["grad_norm"], rel=1e-4)


# ---- decoding ----


def pass_numbers(steps: list[int]) -> list[tuple[int, int, int]]:
    """Of every network pass: its stage, number in the stage and how many that has."""
    return [(stage, index, count) for stage, count in enumerate(steps) for index in range(count)]


CASES = {
    "argmax_nonoverlap": "greedy",
    "argmax_stride1": "greedy",
    "top_p_nonoverlap": "nucleus",
    "top_p_stride1_audio": "nucleus",
    "plain_stride1": "unsorted",
    "fixed_temperature": "nucleus",
    "prompt_nonoverlap": "greedy",
    "prompt_stride1": "nucleus",
}
"""Left out: top_k_nonoverlap and argmax_prod, whose rules (top-k, products of probabilities) are not offered."""


@pytest.mark.parametrize("decoding", ["plain", "fast"])
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_decoding(golden: Golden, case: str, decoding: str) -> None:
    spec, arrays, inputs = (
        golden.spec("magnet_sampling"),
        golden.arrays("magnet_sampling"),
        golden.inputs("magnet_sampling"),
    )
    record: dict[str, Any] = spec["cases"][case]
    how, (batch, _, columns) = record["parameters"], record["shape"]
    network = build(golden, "magnet_lm_tiny", columns, how["span_arrangement"])
    known = None
    if record["prompt"] is not None:
        given = inputs[record["prompt"]]
        tokens = F.pad(given, (0, columns - given.shape[2])).flatten(1)
        known = tokens, (torch.arange(columns) < given.shape[2]).repeat(batch, 4)
    # With the smallest nucleus the likeliest token is drawn, whatever the number.
    top_p = {"greedy": 1e-9, "nucleus": how["top_p"], "unsorted": 1.0}[CASES[case]]
    settings = Decoding(steps=tuple(how["decoding_steps"]), temperature=how["temp"], top_p=top_p)
    if decoding == "plain":
        made = network.plain_decoding(settings, [0] * batch, known)
        draws, temperatures = made.plan.draws, made.plan.temperatures
    else:
        made = network.fast_decoding(settings, [0] * batch, known)
        _, temperatures, _, draws, _ = made.tensors
        tokens, at = made.tokens, made.at
    if not how["anneal_temp"]:
        temperatures.fill_(how["temp"])
    if record["uniforms"] is not None:
        draws.copy_(golden_input(record["uniforms"])[:, :, 0, :columns])
    stages, passes = arrays[record["npz"]["stages"]], arrays[record["npz"]["inputs"]]
    for number, (stage, index, count) in enumerate(pass_numbers(how["decoding_steps"])):
        seen = made.tokens.masked_fill(made.masked, network.codes) if decoding == "plain" else tokens
        assert np.array_equal(seen.view(batch, 4, columns), passes[number]), f"pass {number}"
        share = math.cos(math.pi / 2 * index / (count - 1)) if count > 1 else 1.0
        guidance = share * how["max_cfg_coef"] + (1 - share) * how["min_cfg_coef"]
        logits = guided(network, seen, inputs["t5_hidden"], spec["inputs"]["text_lengths"], stage, guidance)
        if number == 0 and case == "argmax_nonoverlap":
            assert_golden(logits.first, arrays["first_logits"])
        if CASES[case] == "unsorted":
            draws[number] = of_sorted(logits.guided, draws[number], temperatures[number])
        if decoding == "plain":
            made.decide(number, logits.guided)
            reached = made.tokens.masked_fill(made.masked, network.codes)
        else:
            mine = logits.guided.gather(1, at[..., None].expand(-1, -1, network.codes))
            tokens, at = made.decide(number, mine, tokens, at, made.tensors)
            reached = tokens
        if index + 1 == count:
            assert np.array_equal(reached.view(batch, 4, columns), stages[stage]), f"stage {stage}"


class guided:  # noqa: N801
    """Logits of the rows with text and without, and what guidance makes of them."""

    def __init__(
        self, network: MagnetNetwork, tokens: Tensor, hidden: Tensor, lengths: list[int], stage: int, guidance: float
    ) -> None:
        masked = both(tokens == network.codes)
        inputs = network.embed(
            both(tokens), masked, both(hidden), torch.ones(len(masked), dtype=torch.bool), level=stage
        )
        self.first = network(as_official(network, inputs, both(hidden), [*lengths, 0, 0]))
        conditional, null = self.first.chunk(2)
        self.guided = null + guidance * (conditional - null)


def of_sorted(logits: Tensor, draws: Tensor, temperature: Tensor) -> Tensor:
    """The numbers that draw from codes in falling order what these draw from codes in their own order."""
    probability = (logits / temperature).softmax(-1).double()
    drawn = (probability.cumsum(-1) <= draws[..., None]).sum(-1, keepdim=True)
    ranked, codes = probability.sort(dim=-1, descending=True, stable=True)
    reached = ranked.cumsum(-1) - ranked / 2
    return reached[codes == drawn].view(draws.shape).float()


def test_overlapping_spans(golden: Golden) -> None:
    record = golden.spec("magnet_sampling")["least_probable_spans"]
    scores, expected = golden_input(record["scores"])[0], golden.arrays("magnet_sampling")[record["npz"]]
    spans = OverlappingSpans(3, 100)
    for target, masked in zip(record["targets"], expected, strict=True):
        found = spans.least_certain(torch.exp(-scores), torch.ones(1, 100, dtype=torch.bool), torch.tensor([target]))
        assert np.array_equal(found[0], masked), target
        assert found.sum() <= spans.columns(target)


@pytest.mark.parametrize("arrangement", ["nonoverlap", "stride1"])
def test_schedules(golden: Golden, arrangement: str) -> None:
    """Counts in float32 as upstream: of ten steps the sixth share is just below one half."""
    columns = {"nonoverlap": 498, "stride1": 500}[arrangement]
    counts = {"nonoverlap": "masked_spans_of_166", "stride1": "masked_tokens_of_500"}[arrangement]
    network = build(golden, "magnet_lm_tiny", columns, arrangement)
    schedules = golden.spec("magnet_sampling")["schedules"]
    for steps, record in schedules.items():
        if steps == "note":
            continue
        how = Decoding(steps=(int(steps),) * 4, temperature=3.5, top_p=0.8)
        plan = network.plain_decoding(how, [0], None).plan
        assert plan.counts[:, 0].tolist() == record[counts] * 4
        assert plan.temperatures.tolist() == pytest.approx(record["temperature_3.5"] * 4, rel=1e-6)
