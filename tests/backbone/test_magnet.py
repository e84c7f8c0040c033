"""MAGNeT's network: what each token sees and hears, and that the sampler's shortcuts give the same.

Shape letters: B clips, F codebooks, T columns, N = F * T, P prompt width, Q prompts of a clip, W kinds of words.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from specmaskfoley.backbone.magnet.masking import SpanMasks
from specmaskfoley.backbone.magnet.network import Context, MagnetNetwork
from specmaskfoley.backbone.role import Inputs
from specmaskfoley.settings import Magnet, TokenGrid

CODES, PROMPT, WIDTH, WINDOW = 7, 6, 16, 2
GRID = TokenGrid(3, 11, 320)
YES, NO = torch.tensor([True, True]), torch.tensor([False, False])
LEVELS = range(GRID.rows)


def build(depth: int = 3) -> MagnetNetwork:
    torch.manual_seed(0)
    settings = Magnet(
        kind="magnet", codebooks=GRID.rows, depth=depth, width=WIDTH, heads=2, mlp_width=32, window=WINDOW
    )
    made = MagnetNetwork(settings, grid=GRID, codes=CODES, prompt_width=PROMPT).eval()
    for parameter in made.parameters():  # as if trained: at their start, many effects are small
        torch.nn.init.normal_(parameter, std=0.4)
    return made


@pytest.fixture(scope="module")
def network() -> MagnetNetwork:
    return build()


@pytest.fixture(scope="module")
def shallow() -> MagnetNetwork:
    """One block: what a column sees is not passed on."""
    return build(depth=1)


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """tokens (2, N), masked (2, N), prompts (2, 4, P) of which the second's last two are no part of it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (2, GRID.size), generator=generator)
    masked = torch.rand(2, GRID.size, generator=generator) < 0.5
    masked[:, 0], masked[:, 1] = True, False
    prompt = torch.randn(2, 4, PROMPT, generator=generator)
    prompt[1, 2:] = 0.0
    return tokens, masked, prompt


def place(codebook: int, column: int) -> int:
    return codebook * GRID.columns + column


@pytest.mark.parametrize("level", LEVELS)
@torch.inference_mode()
def test_tokens_under_the_mask_do_not_leak(network, level):
    tokens, masked, prompt = batch()
    first = network(network.embed(tokens, masked, prompt, YES, level=level))
    assert first.shape == (2, GRID.columns, CODES)
    none = torch.where(masked, -1, tokens)
    assert torch.equal(first, network(network.embed(none, masked, prompt, YES, level=level)))


@torch.inference_mode()
def test_every_visible_token_counts(network):
    tokens, masked, prompt = batch()
    first = network(network.embed(tokens, masked, prompt, YES))
    for position in torch.nonzero(~masked[0])[:, 0].tolist():
        other = tokens.clone()
        other[0, position] = (tokens[0, position] + 1) % CODES
        second = network(network.embed(other, masked, prompt, YES))
        assert not torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("level", LEVELS)
@torch.inference_mode()
def test_later_codebooks_look_at_columns_nearby_alone(shallow, level):
    tokens, _, prompt = batch()
    nothing = torch.zeros_like(tokens, dtype=torch.bool)
    first = shallow(shallow.embed(tokens, nothing, prompt, YES, level=level))
    for column in range(GRID.columns):
        other = tokens.clone()
        other[:, place(0, column)] = (tokens[:, place(0, column)] + 1) % CODES
        second = shallow(shallow.embed(other, nothing, prompt, YES, level=level))
        differs = (first != second).any(-1)
        near = (torch.arange(GRID.columns) - column).abs() <= WINDOW
        assert torch.equal(differs, (near if level else torch.ones_like(near)).expand(2, -1))


@torch.inference_mode()
def test_each_level_has_a_head_of_its_own(network):
    x = torch.randn(2, 5, WIDTH)
    for level in LEVELS:
        torch.testing.assert_close(network.logits(x, level), network.norm(x) @ network.heads[level].weight.T)


@torch.inference_mode()
def test_silence_adds_nothing_at_all(network):
    tokens, masked, prompt = batch()
    silent = network.embed(tokens, masked, prompt, NO)
    skipped = silent._replace(contexts=[Context(None, None)] * 3)
    assert torch.equal(network(silent), network(skipped))
    assert torch.equal(network(silent), network(network.embed(tokens, masked, torch.zeros_like(prompt), YES)))
    assert not torch.allclose(network(silent), network(network.embed(tokens, masked, prompt, YES)), atol=1e-3)


@torch.inference_mode()
def test_rows_choose_whether_they_hear(network):
    tokens, masked, prompt = batch()
    mixed = network(network.embed(tokens, masked, prompt, torch.tensor([False, True])))
    torch.testing.assert_close(mixed[:1], network(network.embed(tokens, masked, prompt, NO))[:1])
    torch.testing.assert_close(mixed[1:], network(network.embed(tokens, masked, prompt, YES))[1:])


@torch.inference_mode()
def test_what_is_no_part_of_a_prompt_is_not_heard(network):
    tokens, masked, prompt = batch()
    padded = network(network.embed(tokens, masked, prompt, YES))
    alone = network(network.embed(tokens[1:], masked[1:], prompt[1:, :2], YES[1:]))
    torch.testing.assert_close(padded[1:], alone)
    cut = network(network.embed(tokens, masked, prompt[:, :2], YES))
    assert not torch.allclose(padded[:1], cut[:1], atol=1e-3)


@torch.inference_mode()
def test_a_prompt_may_be_one_vector(network):
    tokens, masked, prompt = batch()
    first = network(network.embed(tokens, masked, prompt[:, 0], YES))
    torch.testing.assert_close(first, network(network.embed(tokens, masked, prompt[:, :1], YES)))


@torch.inference_mode()
def test_columns_hear_the_prompt_that_is_theirs(shallow):
    tokens, masked, prompt = batch()
    queue = torch.stack([prompt, prompt.flip(0) + 1.0], 1)  # (2, Q, 4, P)
    columns = torch.tensor([0, 1, -1]).repeat(4)[: GRID.columns]
    at = torch.stack([columns, columns.flip(0)]).repeat(1, GRID.rows)
    found = shallow(shallow.embed(tokens, masked, queue, YES, at=at))
    alone = [shallow(shallow.embed(tokens, masked, queue[:, number], YES)) for number in (0, 1)]
    alone.append(shallow(shallow.embed(tokens, masked, queue[:, 0], NO)))  # -1
    for row, clip in enumerate(at[:, : GRID.columns]):
        for column, number in enumerate(clip.tolist()):
            torch.testing.assert_close(found[row, column], alone[number][row, column])
    unheard = shallow(shallow.embed(tokens, masked, queue, NO, at=at))
    torch.testing.assert_close(unheard, alone[-1])


@torch.inference_mode()
def test_prompts_by_column_may_be_vectors(network):
    tokens, masked, prompt = batch()
    at = (torch.arange(GRID.columns) % 3 - 1).repeat(2, GRID.rows)
    found = network(network.embed(tokens, masked, prompt[:, :2], YES, at=at))
    torch.testing.assert_close(found, network(network.embed(tokens, masked, prompt[:, :2, None], YES, at=at)))


@pytest.mark.parametrize("level", LEVELS)
@torch.inference_mode()
def test_a_block_may_compute_some_columns_alone(network, level):
    tokens, masked, prompt = batch()
    at_token = (torch.arange(GRID.columns) % 5 - 1).repeat(2, GRID.rows)
    columns = torch.tensor([[0, 3, 10], [9, 1, 4]])
    for given in (None, at_token):
        x, contexts, _ = network.embed(tokens, masked, prompt, YES, level=level, at=given)
        whole = network.blocks[0](x, contexts[0])
        part = network.blocks[0](x, contexts[0], columns)
        torch.testing.assert_close(part, whole.gather(1, columns[..., None].expand(-1, -1, WIDTH)))


WORDS = {"none": [0, 0], "usual": [0, 0, 1], "unwanted": [0, 1, 2], "scattered": [1, 0, 2, 1, 0]}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("by_column", [False, True])
@torch.inference_mode()
def test_what_is_heard_once_is_what_is_heard_in_every_pass(network, words, level, by_column):
    tokens, masked, prompt = batch()
    _, _, negative = batch(1)
    negative, branch = negative[:, :3], build().blocks[:2]
    for block in branch:
        torch.nn.init.normal_(block.cross.kv.weight, std=0.4)
    at = (torch.arange(GRID.columns) % 5 - 1).repeat(2, GRID.rows) if by_column else None
    passes = {
        0: network.embed(tokens, masked, negative, NO, level=level),
        1: network.embed(tokens, masked, prompt, YES, level=level, at=at),
        2: network.embed(tokens, masked, negative, YES, level=level),
    }
    heard = network.hear(prompt, at, negative, [network.blocks, branch])
    x = network.embed_heard(heard, tokens.masked_fill(masked, CODES), words) + network.positions
    for number, blocks in enumerate([network.blocks, branch]):
        contexts = network.contexts(heard, words, level, number, torch.float32)
        assert len(contexts) == len(blocks)
        found = x.flatten(0, 1)
        for block, context in zip(blocks, contexts, strict=True):
            found = block(found, context)
        for one, mine in zip(words, found.chunk(len(words)), strict=True):
            torch.testing.assert_close(mine, through(blocks, passes[one]), atol=2e-5, rtol=2e-5)


def through(blocks: torch.nn.ModuleList, inputs: Inputs) -> Tensor:
    x = inputs.x
    for block, context in zip(blocks, inputs.contexts, strict=False):
        x = block(x, context)
    return x


@torch.inference_mode()
def test_without_what_is_not_to_be_heard_there_is_silence(network):
    tokens, masked, prompt = batch()
    heard = network.hear(prompt, None, None, [network.blocks])
    (context, *_) = network.contexts(heard, [2], 0, 0, torch.float32)
    x = network.embed(tokens, masked, prompt, NO).x
    assert torch.equal(network.blocks[0](x, context), network.blocks[0](x, Context(None, None)))


@torch.inference_mode()
def test_the_sampler_may_hold_the_blocks_in_half_precision():
    network = build()
    tokens, masked, prompt = batch()
    expected = through(network.blocks, network.embed(tokens, masked, prompt, YES, level=1))
    network.blocks.bfloat16()
    heard = network.hear(prompt, None, None, [network.blocks])
    x = (network.embed_heard(heard, tokens.masked_fill(masked, CODES), [1]) + network.positions).bfloat16()
    found = through(network.blocks, Inputs(x[0], network.contexts(heard, [1], 1, 0, torch.bfloat16), 1))
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("level", LEVELS)
def test_half_precision_on_a_processor_learns_from_the_same_sums(network, level):
    """There, training multiplies otherwise than sampling does."""
    tokens, masked, prompt = batch()
    at = (torch.arange(GRID.columns) % 5 - 1).repeat(2, GRID.rows)
    with torch.autocast("cpu", torch.bfloat16):
        training = network(network.embed(tokens, masked, prompt, YES, level=level, at=at))
        with torch.no_grad():
            sampling = network(network.embed(tokens, masked, prompt, YES, level=level, at=at))
    exact = network(network.embed(tokens, masked, prompt, YES, level=level, at=at))
    for found in (training, sampling):
        assert (found.float() - exact).norm() < 0.05 * exact.norm()


def test_gradients_reach_everything_but_other_heads():
    network = build()
    tokens, masked, prompt = batch()
    network(network.embed(tokens, masked, prompt, torch.tensor([True, False]), level=1)).sum().backward()
    for name, parameter in network.named_parameters():
        if name in ("heads.0.weight", "heads.2.weight"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("level", LEVELS)
def test_training_masks_spans_of_one_codebook_and_all_later_ones(network, level):
    generator = torch.Generator().manual_seed(3)
    masked = network.random_mask(50, level, generator).view(50, GRID.rows, GRID.columns)
    assert not masked[:, :level].any()
    assert masked[:, level].any(1).all()
    assert masked[:, level + 1 :].all()
    assert torch.equal(network.of_level(masked.flatten(1), level), masked[:, level])


def test_masks_are_spans():
    generator = torch.Generator().manual_seed(0)
    masked = SpanMasks(50, 4).draw(torch.rand(200, generator=generator), torch.rand(200, 50, generator=generator))
    assert masked.any(1).all()
    for row in masked.tolist():
        runs = "".join("x" if one else "." for one in row).split(".")
        assert all(len(run) >= 4 for run in runs[:-1] if run)  # the last may be cut


@pytest.mark.parametrize("span", [1, 3, 5])
def test_the_masked_share_falls_as_a_cosine(span):
    generator = torch.Generator().manual_seed(0)
    for time in (0.0, 0.3, 0.7, 0.9):
        masked = SpanMasks(200, span).draw(torch.full((300,), time), torch.rand(300, 200, generator=generator))
        # The first columns lie in fewer spans.
        expected = math.cos(math.pi / 2 * time)
        assert masked[:, span - 1 :].float().mean().item() == pytest.approx(expected, abs=0.015)
    assert SpanMasks(200, span).draw(torch.ones(9), torch.rand(9, 200)).any(1).all()


def test_a_new_network_is_as_upstream_begins():
    settings = Magnet(kind="magnet", codebooks=2, depth=3, width=256, heads=4, mlp_width=512)
    network = MagnetNetwork(settings, grid=TokenGrid(2, 9, 320), codes=300, prompt_width=64)
    scales = {"tables.1": 256**-0.5, "heads.1": 256**-0.5, "prompt": 64**-0.5}
    for index in range(3):
        deep = (2 * (index + 1)) ** -0.5
        inside = {"attention.qkv": 256, "attention.out": 256, "cross.q": 256, "cross.kv": 256, "cross.out": 256}
        for name, inputs in {**inside, "mlp.0": 256, "mlp.2": 512}.items():
            scales[f"blocks.{index}.{name}"] = deep * inputs**-0.5
    for name, scale in scales.items():
        weight = network.get_submodule(name).weight
        assert weight.std().item() == pytest.approx(0.987 * scale, rel=0.02), name  # of a normal cut at 3
        assert weight.abs().max() <= 3 * scale * (1 + 1e-6), name
        assert weight.abs().max() > 2.7 * scale, name
    assert not network.prompt.bias.any()
    # The golden numbers would not tell another.
    assert {module.eps for module in network.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-5}


def official_names(network: MagnetNetwork) -> dict[str, Tensor]:
    """Weights under AudioCraft's names, in half precision as in its file."""
    named = {}
    for key, value in network.state_dict().items():
        key = key.replace("prompt.", "condition_provider.conditioners.description.output_proj.")
        key = key.replace("blocks.", "transformer.layers.").replace("tables.", "emb.").replace("heads.", "linears.")
        key = "out_" + key if key.startswith("norm.") else key
        key = key.replace("attention.qkv.weight", "self_attn.in_proj_weight").replace("mlp.0", "linear1")
        key = key.replace("attention.out", "self_attn.out_proj").replace("mlp.2", "linear2")
        key = key.replace("cross.out", "cross_attention.out_proj")
        named[key] = value.half()
    for index in range(len(network.blocks)):
        own = f"transformer.layers.{index}."
        parts = [named.pop(f"{own}cross.{part}.weight") for part in ("q", "kv")]
        named[f"{own}cross_attention.in_proj_weight"] = torch.cat(parts)
    return named


def test_official_names_load(network):
    other = build()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_official(official_names(network), "a file")
    for name, value in other.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, network.state_dict()[name].half().float()), name


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda named: named.pop("transformer.layers.1.cross_attention.in_proj_weight"), "2 missing"),
        (lambda named: named.update({"emb.3.weight": torch.zeros(8, 16)}), "1 unknown"),
        (lambda named: named.update({"linears.0.weight": torch.zeros(8, 16)}), "1 of another shape"),
        (
            lambda named: named.update({"transformer.layers.1.cross_attention.in_proj_weight": torch.zeros(47, 16)}),
            "1 of another shape",
        ),
    ],
)
def test_other_names_and_shapes_are_refused(network, spoil, message):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    named = official_names(network)
    spoil(named)
    with pytest.raises(ValueError, match=f"a file.*{message}"):
        network.load_official(named, "a file")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
