"""How a codec of mels learns: reconstruction through nearest codes, which are kept by moving averages.

Shape letters: n clips, M mel bands, L mel frames, C code width, K codes, F token rows, T token columns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.codec.codebooks import MovingCodebook, codebook_usage, nearest_code
from specmaskfoley.codec.discriminator import Discriminator
from specmaskfoley.codec.role import CodecNetwork
from specmaskfoley.device import autocast
from specmaskfoley.settings import TrainCodec
from specmaskfoley.training.batches import Batch, Rows
from specmaskfoley.training.loop import Scores


class CodebookAverages(nn.Module):
    """Moving averages behind each code (van den Oord et al. 2017, appendix A.1)."""

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(len(codes)))
        self.register_buffer("sums", torch.zeros_like(codes, requires_grad=False))


class Coded(NamedTuple):
    """What a batch of mels became; without quantisation there are no tokens, and nothing is left."""

    decoded: Tensor
    tokens: Tensor | None
    left: list[Tensor]


class Autoencoder(nn.Module):
    """The codec's forward pass in training: straight through the codebooks (van den Oord et al. 2017)."""

    def __init__(self, codec: CodecNetwork, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.codec = codec
        self._autocast = autocast

    def forward(self, mel: Tensor, quantizes: bool) -> Coded:
        """(b, 1, M, L) -> decoded of the same shape."""
        with self._autocast():
            latents = self.codec.encode_latents(mel)
        codes = latents = latents.float()
        tokens, left = None, list[Tensor]()
        if quantizes:
            tokens, left = self.codec.assign(latents)
            codes = latents - left[-1].detach()
        with self._autocast():
            decoded = self.codec.decode_latents(codes)
        return Coded(decoded.float(), tokens, left)


class CodecObjective:
    """L1 reconstruction and commitment; squared and adversarial terms where their weight is not zero.

    The first `quantize_after` steps train a plain autoencoder; its latents then seed the codebooks by k-means, each on
    what those before it leave, which saves the many steps a random codebook spends mostly dead.
    """

    criterion = "reconstruction"
    splits = True

    def __init__(
        self,
        codec: CodecNetwork,
        settings: TrainCodec,
        train: Rows,
        valid: Tensor,
        *,
        column: int,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        """
        Args:
            train: rows with a column `mel`, (M, L) normalised; valid: (n, M, L) likewise.
            column: mel frames of a token column.
        """
        self.settings, self.train, self.valid, self.device = settings, train, valid, device
        self.codec = codec
        self.averages = nn.ModuleList(CodebookAverages(codes) for codes in codec.codebooks).to(device)
        self.discriminator = Discriminator().to(device) if settings.adversarial_weight else None
        self.crop = min(settings.crop_columns * column, valid.shape[-1])
        self.modules = nn.ModuleDict({"codec": codec, "averages": self.averages})
        if self.discriminator is not None:
            self.modules["discriminator"] = self.discriminator
        self._codec: nn.Module = Autoencoder(codec, lambda: autocast(precision, device))
        self._judge: nn.Module | None = self.discriminator
        self._total: Callable[[Tensor], Tensor] = lambda values: values
        self._coded: list[tuple[Tensor, Coded]] = []  # of the parts of the step at hand, for what comes after
        self._judged = 0

    def groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {"codec": [p for p in self.codec.parameters() if p.requires_grad]}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

    @property
    def _codebooks(self) -> list[MovingCodebook]:
        """Made anew, since spreading a network over processes replaces its buffers."""
        decay, dead = self.settings.codebook_decay, self.settings.dead_code_threshold
        return [
            MovingCodebook(codes, averages.counts, averages.sums, decay, dead)  # type: ignore[arg-type]
            for codes, averages in zip(self.codec.codebooks, self.averages, strict=True)
        ]

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        self._codec, self._total = prepare(self._codec, compiles=False), total
        if self.discriminator is not None:
            self._judge = prepare(self.discriminator, compiles=False)

    def draw(self, size: int, step: int, generator: torch.Generator) -> Batch:
        """Where each clip's crop starts (B,), and its share of the step's loss (B,)."""
        starts = torch.randint(self.valid.shape[-1] - self.crop + 1, (size,), generator=generator)
        return {"start": starts, "weight": torch.full((size,), 1.0 / size)}

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        share = batch["weight"].sum()  # on the CPU, like all that is drawn: no wait for the device
        if group == "discriminator":
            loss, seen = self._discriminator_loss(step)
        else:
            loss, seen = self._codec_loss(batch, step)
        return share * loss, {name: share * value for name, value in seen.items()}

    def _codec_loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        mel = self._crops(batch)
        coded: Coded = self._codec(mel, step >= self.settings.quantize_after)
        decoded = coded.decoded
        reconstruction = F.l1_loss(decoded, mel)
        loss = reconstruction + self.settings.squared_weight * F.mse_loss(decoded, mel)
        seen = {"reconstruction": reconstruction.detach()}
        if coded.tokens is not None:
            commitment = torch.stack([F.mse_loss(left, torch.zeros_like(left)) for left in coded.left[1:]]).mean()
            loss = loss + self.settings.commitment_weight * commitment
            seen |= {"commitment": commitment.detach()} | self._usage(coded.tokens)
        if self.discriminator is not None and step >= self.settings.adversarial_after:
            self.discriminator.requires_grad_(False)  # it learns from its own loss alone
            loss = loss - self.settings.adversarial_weight * self.discriminator(decoded).mean()
            self.discriminator.requires_grad_(True)
        self._coded.append((mel, coded))
        return loss, seen

    def after_step(self, step: int, generator: torch.Generator) -> None:
        if step + 1 == self.settings.quantize_after or (step == 0 and self.settings.quantize_after == 0):
            self._seed_codebooks(generator)
        elif step >= self.settings.quantize_after:
            self._update_codebooks(generator)
        self._coded, self._judged = [], 0

    def validate(self, generator: torch.Generator) -> Scores:
        """Of whole clips, through the codebooks: L1 on the normalised mel, usage and perplexity of the codes."""
        errors, tokens = [], []
        for mel in torch.split(self.valid, 16):
            mel = mel[:, None].to(self.device)
            coded = self.codec.tokens(mel)
            errors.append(F.l1_loss(self.codec.decode(coded), mel, reduction="none").mean((1, 2, 3)))
            tokens.append(coded.cpu())
        usage = self._usage(torch.cat(tokens))
        return {"reconstruction": float(torch.cat(errors).mean()), **{name: float(v) for name, v in usage.items()}}

    def _usage(self, tokens: Tensor) -> dict[str, Tensor]:
        """Perplexity and share of codes used, mean over the codebooks."""
        several = len(self.averages) > 1
        shares = [
            codebook_usage(part, self.codec.codebook_size) for part in (tokens.unbind(1) if several else [tokens])
        ]
        used, perplexity = (torch.stack(values).mean() for values in zip(*shares, strict=True))
        return {"perplexity": perplexity, "codes_used": used}

    def _crops(self, batch: Batch) -> Tensor:
        mels = batch["mel"].to(self.device, non_blocking=True)  # before cropping: out of page-locked memory
        crops = [mel[:, s : s + self.crop] for mel, s in zip(mels, batch["start"].tolist(), strict=True)]
        return torch.stack(crops)[:, None].float()

    def _discriminator_loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge loss on the next part that the codec has decoded in this step."""
        assert self._judge is not None
        mel, coded = self._coded[self._judged]
        self._judged += 1
        real, copied = self._judge(torch.cat([mel, coded.decoded.detach()])).chunk(2)
        loss = F.relu(1.0 - real).mean() + F.relu(1.0 + copied).mean()
        active = float(step >= self.settings.adversarial_after)
        return active * loss, {"discriminator": loss.detach()}

    @torch.no_grad()
    def _seed_codebooks(self, generator: torch.Generator) -> None:
        self.codec.eval()
        rows = torch.randperm(len(self.train.ids), generator=generator)[:256]
        mels = torch.from_numpy(np.array(self.train.take(rows.tolist())["mel"])).float()
        parts = [self.codec.encode_latents(mel[:, None].to(self.device)) for mel in torch.split(mels, 16)]
        self.codec.train()
        left = torch.cat([_vectors(part) for part in parts])
        per_step = self.settings.optim.batch_size * len(left) * self.crop // (len(mels) * mels.shape[-1])
        for codebook in self._codebooks:
            codebook.seed(left, per_step, generator)
            left = left - codebook.codes[nearest_code(left, codebook.codes)]

    @torch.no_grad()
    def _update_codebooks(self, generator: torch.Generator) -> None:
        parts = [coded for _, coded in self._coded if coded.tokens is not None]
        for level, codebook in enumerate(self._codebooks):
            vectors = torch.cat([_vectors(coded.left[level].detach()) for coded in parts])
            rows = slice(None) if len(self.averages) == 1 else level
            tokens = torch.cat([coded.tokens[:, rows].flatten() for coded in parts if coded.tokens is not None])
            codebook.update(vectors, tokens, generator, self._total)


def _vectors(latents: Tensor) -> Tensor:
    """(b, C, ...) -> (n, C)."""
    return latents.movedim(1, -1).flatten(0, -2)
