"""MAGNeT: a masked generative Transformer over the codebooks of a waveform codec (Ziv et al. 2024).

All codebooks of a column are summed into one position; each level decides one codebook, the coarsest first, and all but
the first look only at columns nearby. Prompts are heard by cross-attention.

Shape letters: B clips, F codebooks, T columns, N = F * T tokens of a clip, D width, H heads, d = D / H, K codes, Q
prompts of a clip, P prompt width, L positions of all prompts of a clip and one of silence, m columns that are computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.layers import take
from specmaskfoley.backbone.magnet.decoding import MagnetFastDecoding, MagnetPlainDecoding, Plan
from specmaskfoley.backbone.magnet.masking import SpanMasks
from specmaskfoley.backbone.role import Backbone, Inputs
from specmaskfoley.settings import Decoding, Magnet, TokenGrid
from specmaskfoley.weights.reading import load_strictly


class Words(NamedTuple):
    """What some rows of a batch hear.

    source: (b, L, D), or keys and values that the block made of it, (2, b, H, L, d).
    visible: (b, 1 or T, L) bool, which of its positions each column hears.
    rows: the b rows of the batch; cross-attention adds 0 to the others, and is left out there.
    """

    source: Tensor
    visible: Tensor
    rows: slice


class Context(NamedTuple):
    """What a block reads besides the sequence.

    window: (T, T) bool, which columns each column sees; None: all. words: None: nothing is heard.
    """

    window: Tensor | None
    words: Words | None


class SelfAttention(nn.Module):
    """Multi-head attention without biases, all around or in a window: (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, window: Tensor | None, at: Tensor | None) -> Tensor:
        """With `at`, (B, m), the results at these columns alone: (B, m, D)."""
        q, k, v = _split_heads(self.qkv(x), 3, self.heads)
        if at is not None:
            q = q.gather(2, at[:, None, :, None].expand(-1, self.heads, -1, q.shape[-1]))
            window = None if window is None else window[at][:, None]
        return self.out(_joined(q, k, v, window))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention from columns to words, without biases: silence, a source of zeros, adds exactly 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def hear(self, source: Tensor) -> Tensor:
        """Keys and values: (B, L, D) -> (2, B, H, L, d)."""
        return _split_heads(self.kv(source), 2, self.heads)

    def forward(self, x: Tensor, heard: Tensor, visible: Tensor) -> Tensor:
        """(B, m, D), (2, B, H, L, d), (B, 1 or m, L) -> (B, m, D)."""
        (q,) = _split_heads(self.q(x), 1, self.heads)
        return self.out(_joined(q, heard[0], heard[1], visible[:, None]))  # type: ignore[no-any-return]


def _split_heads(x: Tensor, parts: int, heads: int) -> Tensor:
    """(B, n, parts * D) -> (parts, B, H, n, d)"""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)


def _joined(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of (B, H, n, d), with a bool mask that leaves every row a key -> (B, n, D)."""
    if q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # The backward pass of the fused kernel takes up to five times as long there as plain products' (measured).
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        if mask is not None:
            scores = scores + torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
        mixed = scores.softmax(-1) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, mask)
    return mixed.transpose(1, 2).flatten(2)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm Transformer block with cross-attention; 16,783,360 parameters at D=1024, MLP 4096."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width, bias=False), nn.GELU(), nn.Linear(mlp_width, width, bias=False)
        )

    def forward(self, x: Tensor, context: Context, at: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, m, D) at columns `at`, (B, m)."""
        mixed = self.attention(self.norm1(x), context.window, at)
        x = (x if at is None else take(x, at)) + mixed
        if context.words is not None:
            x = self._hear(x, context.words, at)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _hear(self, x: Tensor, words: Words, at: Tensor | None) -> Tensor:
        source, visible, rows = words
        heard = source if source.dim() == 5 else self.cross.hear(source)
        if at is not None and visible.shape[1] > 1:
            visible = take(visible, at[rows])
        added = x[rows] + self.cross(self.norm_cross(x[rows]), heard, visible)
        return torch.cat([x[: rows.start], added, x[rows.stop :]])


class MagnetNetwork(Backbone):
    """Predicts the masked tokens of a codebook from the visible ones of all.

    A prompt is one vector, (P,), or several, (l, P), of which those of zeros are no part of it.
    """

    sequence_rows = 1

    def __init__(self, settings: Magnet, *, grid: TokenGrid, codes: int, prompt_width: int) -> None:
        super().__init__()
        self.settings, self.grid, self.codes = settings, grid, codes
        self.width = width = settings.width
        self.levels = settings.levels
        self.tables = nn.ModuleList(nn.Embedding(codes + 1, width) for _ in range(self.levels))
        self.prompt = nn.Linear(prompt_width, width)
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.mlp_width) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, codes, bias=False) for _ in range(self.levels))
        columns = torch.arange(grid.columns)
        self.positions: Tensor
        self.window: Tensor
        self.register_buffer("positions", _positions(grid.columns, width), persistent=False)
        near = (columns[:, None] - columns).abs() <= settings.window
        self.register_buffer("window", near, persistent=False)
        self._masks = SpanMasks(grid.columns, settings.span)
        self._initialise()

    def _initialise(self) -> None:
        """As upstream: normal, cut at three deviations of 1 / sqrt(inputs), which fall with the depth in the blocks."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                _cut_normal(module.weight, 1.0)
        nn.init.zeros_(self.prompt.bias)
        for index, block in enumerate(self.blocks, start=1):
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    _cut_normal(module.weight, (2 * index) ** -0.5)

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Copy published weights into this network.

        Args:
            tensors: by AudioCraft's names.
            where: the file, for messages.

        Raises:
            ValueError: names are missing, unknown or of another shape. The network is not changed then.
        """
        renamed = {}
        for name, value in tensors.items():
            for theirs, ours in _NAMES:
                name = name.replace(theirs, ours)
            if name.endswith(_CROSS):
                own = name.removesuffix(_CROSS)
                renamed[f"{own}.cross.q.weight"] = value[: self.width]
                renamed[f"{own}.cross.kv.weight"] = value[self.width :]
            else:
                renamed[name] = value
        load_strictly(self, renamed, where)

    def embed(
        self,
        tokens: Tensor,
        masked: Tensor,
        prompt: Tensor,
        use_prompt: Tensor,
        *,
        level: int = 0,
        at: Tensor | None = None,
    ) -> Inputs:
        source, visible = self._listen(prompt, at, None)
        visible = torch.where(use_prompt[:, None, None], visible[1], visible[0])
        context = Context(self._window(level), Words(source, visible, slice(0, len(tokens))))
        x = self._sum(tokens.masked_fill(masked, self.codes)) + self.positions
        return Inputs(x, [context] * len(self.blocks), level)

    def _sum(self, tokens: Tensor) -> Tensor:
        """Of the codebooks' embeddings: (B, N) -> (B, T, D)."""
        rows = tokens.view(-1, self.levels, self.grid.columns).unbind(1)
        embedded: list[Tensor] = [table(row) for table, row in zip(self.tables, rows, strict=True)]
        return reduce(torch.add, embedded)

    def _window(self, level: int) -> Tensor | None:
        return self.window if level else None

    def _listen(self, prompt: Tensor, at: Tensor | None, negative: Tensor | None) -> tuple[Tensor, Tensor]:
        """Source (B, L, D): silence, then all prompts, then what is not to be heard; and what of it each column hears
        with each kind of words, (3, B, 1 or T, L) bool. Silence is heard where nothing else is."""
        batch = len(prompt)
        queue = prompt if at is not None else prompt[:, None]
        queue = queue.view(batch, queue.shape[1], -1, queue.shape[-1])  # (B, Q, l, P)
        parts = [queue.new_zeros(batch, 1, queue.shape[-1]), queue.flatten(1, 2)]
        # Which prompt a position belongs to; that of silence to none, and what is not to be heard to one behind all.
        numbers = [-1, *(number for number in range(queue.shape[1]) for _ in range(queue.shape[2]))]
        if negative is not None:
            parts.append(negative.view(batch, -1, queue.shape[-1]))
            numbers += [queue.shape[1]] * parts[-1].shape[1]
        given = torch.cat(parts, 1)
        real = (given != 0).any(-1)[:, None]  # (B, 1, L)
        number = torch.tensor(numbers, device=given.device)
        asked = number.new_zeros(batch, 1) if at is None else at.view(batch, self.levels, -1)[:, 0]
        heard = torch.stack(
            [
                torch.zeros_like(real).expand(-1, asked.shape[1], -1),
                real & (number == asked[..., None]),
                (real & (number == queue.shape[1])).expand(-1, asked.shape[1], -1),
            ]
        )
        silent = ~heard.any(-1, keepdim=True)
        return self.prompt(given) * real.mT, heard | (silent & (number == -1))

    def head(self, level: int) -> nn.Linear:
        return self.heads[level]  # type: ignore[return-value]

    def random_mask(self, size: int, level: int, generator: torch.Generator) -> Tensor:
        """Spans of the level's codebook by the cosine schedule; later codebooks are masked, earlier ones are seen."""
        time = torch.rand(size, generator=generator)
        own = self._masks.draw(time, torch.rand(size, self.grid.columns, generator=generator))
        later = torch.arange(self.levels)[:, None] > level
        return torch.where(torch.arange(self.levels)[:, None] == level, own[:, None], later).flatten(1)

    def of_level(self, values: Tensor, level: int) -> Tensor:
        return values.view(-1, self.levels, self.grid.columns)[:, level]

    def plain_decoding(
        self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None
    ) -> MagnetPlainDecoding:
        return MagnetPlainDecoding(self._plan(how, seeds, known))

    def fast_decoding(
        self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None
    ) -> MagnetFastDecoding:
        return MagnetFastDecoding(self._plan(how, seeds, known))

    def _plan(self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None) -> Plan:
        return Plan(self.settings, self.grid, self.codes, how, seeds, known, self.positions.device)

    def hear(
        self,
        prompt: Tensor,
        at: Tensor | None,
        negative: Tensor | None,
        networks: Sequence[nn.ModuleList],
    ) -> tuple[Tensor, ...]:
        """What each column hears, (3, B, 1 or T, L), and of each network keys and values, (blocks, 2, B, H, L, d)."""
        source, visible = self._listen(prompt, at, negative)
        return visible, *(
            torch.stack([block.cross.hear(source.to(block.norm1.weight.dtype)) for block in blocks])  # type: ignore
            for blocks in networks
        )

    def embed_heard(self, heard: Sequence[Tensor], tokens: Tensor, words: Sequence[int]) -> Tensor:
        return self._sum(tokens).expand(len(words), -1, -1, -1)

    def contexts(
        self, heard: Sequence[Tensor], words: Sequence[int], level: int, network: int, dtype: torch.dtype
    ) -> Sequence[Context]:
        visible, made = heard[0], heard[1 + network].to(dtype)
        hearing = [place for place, kind in enumerate(words) if kind]
        if not hearing:
            return [Context(self._window(level), None)] * len(made)
        # Passes without words that lie between others hear silence.
        first, stop, batch = hearing[0], hearing[-1] + 1, visible.shape[1]
        rows = slice(first * batch, stop * batch)
        seen = torch.cat([visible[kind] for kind in words[first:stop]])
        return [
            Context(self._window(level), Words(source, seen, rows))
            for source in made.repeat(1, 1, stop - first, 1, 1, 1).unbind()
        ]


_CROSS = ".cross_attention.in_proj_weight"
_NAMES = (
    ("condition_provider.conditioners.description.output_proj.", "prompt."),
    ("transformer.layers.", "blocks."),
    ("out_norm.", "norm."),
    ("emb.", "tables."),
    ("linears.", "heads."),
    (".self_attn.in_proj_weight", ".attention.qkv.weight"),
    (".self_attn.out_proj.", ".attention.out."),
    (".cross_attention.out_proj.", ".cross.out."),
    (".linear1.", ".mlp.0."),
    (".linear2.", ".mlp.2."),
)
"""Parts of AudioCraft's names, and ours."""


def _positions(columns: int, width: int) -> Tensor:
    """Sinusoids of falling frequency, all cosines before all sines: (T, D)."""
    half = width // 2
    period = 10000 ** (torch.arange(half) / (half - 1))
    phase = torch.arange(columns)[:, None] / period
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def _cut_normal(weight: Tensor, scale: float) -> None:
    deviation = scale * weight.shape[1] ** -0.5
    nn.init.trunc_normal_(weight, std=deviation, a=-3 * deviation, b=3 * deviation)
