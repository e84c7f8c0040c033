"""How the codec learns: reconstruction through a nearest-neighbour codebook kept by moving averages.

Shape letters: n clips, M mel bands, L mel frames, C code width, K codes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.codec.network import Codec, Discriminator, codebook_usage, nearest_code
from specmaskfoley.device import autocast
from specmaskfoley.settings import Codec as CodecSettings
from specmaskfoley.settings import TrainCodec
from specmaskfoley.training.batches import Batch, Rows
from specmaskfoley.training.loop import Scores


class CodebookAverages(nn.Module):
    """Moving averages behind each code (van den Oord et al. 2017, appendix A.1)."""

    counts: Tensor
    sums: Tensor

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(settings.codebook_size))
        self.register_buffer("sums", torch.zeros(settings.codebook_size, settings.code_width))


class Coded(NamedTuple):
    """What a batch of mels became; without quantisation there are no tokens, and no commitment."""

    decoded: Tensor
    latents: Tensor
    tokens: Tensor | None
    commitment: Tensor | None


class Autoencoder(nn.Module):
    """The codec's forward pass in training: straight through the codebook (van den Oord et al. 2017)."""

    def __init__(self, codec: Codec, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.codec = codec
        self._autocast = autocast

    def forward(self, mel: Tensor, quantizes: bool) -> Coded:
        """(b, 1, M, L) -> decoded of the same shape."""
        with self._autocast():
            latents = self.codec.encode_latents(mel)
        latents = latents.float()
        codes, tokens, commitment = latents, None, None
        if quantizes:
            tokens = self.codec.quantize(latents)
            nearest = self.codec.quantize.lookup(tokens).detach()
            commitment = F.mse_loss(latents, nearest)
            codes = latents + (nearest - latents).detach()
        with self._autocast():
            decoded = self.codec.decode_latents(codes)
        return Coded(decoded.float(), latents, tokens, commitment)


class CodecObjective:
    """L1 reconstruction and commitment; squared and adversarial terms where their weight is not zero.

    The first `quantize_after` steps train a plain autoencoder; its latents then seed the codebook by k-means,
    which saves the many steps a random codebook spends mostly dead.
    """

    criterion = "reconstruction"
    splits = True

    def __init__(
        self,
        codec: Codec,
        settings: TrainCodec,
        train: Rows,
        valid: Tensor,
        *,
        patch: int,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        """
        Args:
            train: rows with a column `mel`, (M, L) normalised; valid: (n, M, L) likewise.
        """
        self.settings, self.train, self.valid, self.device = settings, train, valid, device
        self.codec = codec
        codec.quantize.requires_grad_(False)
        self.averages = CodebookAverages(codec.settings).to(device)
        self.discriminator = Discriminator().to(device) if settings.adversarial_weight else None
        self.patch = patch
        self.crop = min(settings.crop_columns * patch, valid.shape[-1])
        self.modules = nn.ModuleDict({"codec": codec, "averages": self.averages})
        if self.discriminator is not None:
            self.modules["discriminator"] = self.discriminator
        self._codec: nn.Module = Autoencoder(codec, lambda: autocast(precision, device))
        self._judge: nn.Module | None = self.discriminator
        self._total: Callable[[Tensor], Tensor] = lambda values: values
        self._coded: list[tuple[Tensor, Coded]] = []  # of the parts of the step at hand, for what comes after
        self._judged = 0

    def groups(self) -> dict[str, list[nn.Parameter]]:
        learnt = [p for name, p in self.codec.named_parameters() if not name.startswith("quantize.")]
        groups = {"codec": learnt}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

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
        if coded.tokens is not None and coded.commitment is not None:
            loss = loss + self.settings.commitment_weight * coded.commitment
            used, perplexity = codebook_usage(coded.tokens, self.codec.settings.codebook_size)
            seen |= {"commitment": coded.commitment.detach(), "perplexity": perplexity, "codes_used": used}
        if self.discriminator is not None and step >= self.settings.adversarial_after:
            self.discriminator.requires_grad_(False)  # it learns from its own loss alone
            loss = loss - self.settings.adversarial_weight * self.discriminator(decoded).mean()
            self.discriminator.requires_grad_(True)
        self._coded.append((mel, coded))
        return loss, seen

    def after_step(self, step: int, generator: torch.Generator) -> None:
        if step + 1 == self.settings.quantize_after or (step == 0 and self.settings.quantize_after == 0):
            self._seed_codebook(generator)
        elif step >= self.settings.quantize_after:
            self._update_codebook(generator)
        self._coded, self._judged = [], 0

    def validate(self, generator: torch.Generator) -> Scores:
        """Of whole clips, through the codebook: L1 on the normalised mel, usage and perplexity of the codes."""
        errors, tokens = [], []
        for mel in torch.split(self.valid, 16):
            mel = mel[:, None].to(self.device)
            coded = self.codec.encode(mel)
            errors.append(F.l1_loss(self.codec.decode_latents(coded.codes), mel, reduction="none").mean((1, 2, 3)))
            tokens.append(coded.tokens.cpu())
        used, perplexity = codebook_usage(torch.cat(tokens), self.codec.settings.codebook_size)
        scores = {"perplexity": float(perplexity), "codes_used": float(used)}
        return {"reconstruction": float(torch.cat(errors).mean()), **scores}

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
    def _seed_codebook(self, generator: torch.Generator) -> None:
        """k-means (Lloyd, 10 rounds) on latents of training clips becomes the codebook."""
        self.codec.eval()
        rows = torch.randperm(len(self.train.ids), generator=generator)[:256]
        mels = torch.from_numpy(np.array(self.train.take(rows.tolist())["mel"])).float()
        parts = [self.codec.encode_latents(mel[:, None].to(self.device)) for mel in torch.split(mels, 16)]
        self.codec.train()
        latents = torch.cat([part.permute(0, 2, 3, 1).flatten(0, 2) for part in parts])
        centres = self._draw(latents, self.codec.settings.codebook_size, generator)
        for _ in range(10):
            nearest = nearest_code(latents, centres)
            counts, sums = _gather(latents, nearest, len(centres))
            empty = counts == 0
            centres = sums / counts.clamp(min=1)[:, None]
            centres[empty] = self._draw(latents, int(empty.sum()), generator)
        counts, sums = _gather(latents, nearest_code(latents, centres), len(centres))
        # Scaled to what one training batch brings, so that the averages start in balance.
        per_step = self.settings.optim.batch_size * (self.crop // self.patch) * (mels.shape[1] // self.patch)
        scale = per_step / len(latents)
        self.averages.counts.copy_(counts * scale)
        self.averages.sums.copy_(torch.where(counts[:, None] > 0, sums * scale, centres))
        self.codec.quantize.embedding.weight.copy_(centres)

    @torch.no_grad()
    def _update_codebook(self, generator: torch.Generator) -> None:
        averages, decay = self.averages, self.settings.codebook_decay
        parts = [coded for _, coded in self._coded if coded.tokens is not None]
        latents = torch.cat([coded.latents.detach().permute(0, 2, 3, 1).flatten(0, 2) for coded in parts])
        tokens = torch.cat([coded.tokens.flatten() for coded in parts if coded.tokens is not None])
        counts, sums = (self._total(one) for one in _gather(latents, tokens, len(averages.counts)))
        averages.counts.mul_(decay).add_(counts, alpha=1 - decay)
        averages.sums.mul_(decay).add_(sums, alpha=1 - decay)
        dead = averages.counts < self.settings.dead_code_threshold
        # A dead code starts again at a vector that the encoder produces now (Dhariwal et al. 2020); with several
        # processes, at the mean of one from each. The n-th dead code takes the n-th of as many as there are codes: to
        # count the dead ones, or to index with `dead`, the host would wait for the device at every step.
        processes = self._total(torch.ones((), device=latents.device))
        drawn = self._total(self._draw(latents, len(dead), generator)) / processes
        restarts, count = drawn[dead.cumsum(0) - 1], max(1.0, self.settings.dead_code_threshold)
        averages.counts.masked_fill_(dead, count)
        averages.sums.copy_(torch.where(dead[:, None], restarts * count, averages.sums))
        self.codec.quantize.embedding.weight.copy_(averages.sums / averages.counts[:, None].clamp(min=1e-5))

    @staticmethod
    def _draw(latents: Tensor, count: int, generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(latents), (count,), generator=generator)
        return latents[picked.to(latents.device, non_blocking=True)].float()


def _gather(vectors: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Counts (size,) and sums (size, C) of the vectors of each index; as a product, so that the order is fixed."""
    one_hot = (index[:, None] == torch.arange(size, device=index.device)).float()
    return one_hot.sum(0), one_hot.T @ vectors.float()
