"""How the codec learns: reconstruction through a nearest-neighbour codebook kept by moving averages.

Shape letters: n clips, M mel bands, L mel frames, C code width, K codes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.audio.mel import to_log_mel
from specmaskfoley.config import Codec as CodecSettings
from specmaskfoley.config import TrainCodec
from specmaskfoley.encoders.mini import PromptEncoder
from specmaskfoley.models.codec import Codec, Discriminator, codebook_usage, nearest_code
from specmaskfoley.runtime import autocast
from specmaskfoley.training.loop import Scores


class CodebookAverages(nn.Module):
    """Moving averages behind each code (van den Oord et al. 2017, appendix A.1)."""

    counts: Tensor
    sums: Tensor

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(settings.codebook_size))
        self.register_buffer("sums", torch.zeros(settings.codebook_size, settings.code_width))


class CodecObjective:
    """L1 reconstruction and commitment; adversarial and perceptual terms where their weight is not zero.

    The first `quantize_after` steps train a plain autoencoder; its latents then seed the codebook by k-means,
    which saves the many steps a random codebook spends mostly dead.
    """

    def __init__(
        self,
        codec: Codec,
        settings: TrainCodec,
        train: Tensor,
        valid: Tensor,
        *,
        patch: int,
        device: torch.device,
        precision: str = "float32",
        listener: PromptEncoder | None = None,
    ) -> None:
        """
        Args:
            train, valid: (n, M, L) normalised mels.
            listener: frozen audio encoder whose features the perceptual term compares.
        """
        self.settings, self.train, self.valid, self.device, self.precision = settings, train, valid, device, precision
        self.codec = codec
        self.averages = CodebookAverages(codec.settings).to(device)
        self.discriminator = Discriminator().to(device) if settings.adversarial_weight else None
        self.patch = patch
        self.crop = min(settings.crop_columns * patch, train.shape[-1])
        self.listener = listener.requires_grad_(False).eval() if listener is not None else None
        if settings.perceptual_weight and listener is None:
            raise ValueError("train_codec.perceptual_weight is not zero, but no prompt encoder was given to listen")
        self.modules = nn.ModuleDict({"codec": codec, "averages": self.averages})
        if self.discriminator is not None:
            self.modules["discriminator"] = self.discriminator
        self._batch: tuple[Tensor, Tensor] | None = None

    def groups(self) -> dict[str, list[nn.Parameter]]:
        learnt = [p for name, p in self.codec.named_parameters() if not name.startswith("quantize.")]
        groups = {"codec": learnt}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

    def loss(self, group: str, rows: np.ndarray, step: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        if group == "discriminator":
            return self._discriminator_loss(step)
        mel = self._crops(rows, generator)
        with autocast(self.precision, self.device):
            latents = self.codec.encode_latents(mel)
        latents = latents.float()
        codes, commitment, scores = latents, mel.new_zeros(()), {}
        if step >= self.settings.quantize_after:
            tokens = self.codec.quantize(latents)
            nearest = self.codec.quantize.lookup(tokens).detach()
            commitment = F.mse_loss(latents, nearest)
            codes = latents + (nearest - latents).detach()
            self._latents, self._tokens = latents.detach().permute(0, 2, 3, 1).flatten(0, 2), tokens.flatten()
            used, perplexity = codebook_usage(tokens, self.codec.settings.codebook_size)
            scores = {"commitment": commitment.item(), "perplexity": perplexity, "codes_used": used}
        with autocast(self.precision, self.device):
            decoded = self.codec.decode_latents(codes)
        decoded = decoded.float()
        reconstruction = F.l1_loss(decoded, mel)
        loss = reconstruction + self.settings.squared_weight * F.mse_loss(decoded, mel)
        loss = loss + self.settings.commitment_weight * commitment
        if self.settings.perceptual_weight:
            loss = loss + self.settings.perceptual_weight * self._perceptual(decoded, mel)
        if self.discriminator is not None and step >= self.settings.adversarial_after:
            loss = loss - self.settings.adversarial_weight * self.discriminator(decoded).mean()
        self._batch = (mel, decoded.detach())
        return loss, {"reconstruction": reconstruction.item(), **scores}

    def after_step(self, step: int, generator: torch.Generator) -> None:
        if step + 1 == self.settings.quantize_after or (step == 0 and self.settings.quantize_after == 0):
            self._seed_codebook(generator)
        elif step >= self.settings.quantize_after:
            self._update_codebook(generator)

    def validate(self, generator: torch.Generator) -> Scores:
        """Of whole clips, through the codebook: L1 on the normalised mel, usage and perplexity of the codes."""
        errors, tokens = [], []
        for mel in torch.split(self.valid, 16):
            mel = mel[:, None].to(self.device)
            coded = self.codec.encode(mel)
            errors.append(F.l1_loss(self.codec.decode_latents(coded.codes), mel, reduction="none").mean((1, 2, 3)))
            tokens.append(coded.tokens.cpu())
        used, perplexity = codebook_usage(torch.cat(tokens), self.codec.settings.codebook_size)
        return {"reconstruction": float(torch.cat(errors).mean()), "perplexity": perplexity, "codes_used": used}

    def _crops(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        starts = torch.randint(self.train.shape[-1] - self.crop + 1, (len(rows),), generator=generator).tolist()
        crops = [self.train[row, :, s : s + self.crop] for row, s in zip(rows.tolist(), starts, strict=True)]
        return torch.stack(crops)[:, None].to(self.device)

    def _perceptual(self, decoded: Tensor, mel: Tensor) -> Tensor:
        assert self.listener is not None
        return F.l1_loss(self.listener.audio(to_log_mel(decoded[:, 0])), self.listener.audio(to_log_mel(mel[:, 0])))

    def _discriminator_loss(self, step: int) -> tuple[Tensor, Scores]:
        """Hinge loss on the batch the codec has just decoded."""
        assert self.discriminator is not None
        assert self._batch is not None
        mel, decoded = self._batch
        loss = F.relu(1.0 - self.discriminator(mel)).mean() + F.relu(1.0 + self.discriminator(decoded)).mean()
        active = float(step >= self.settings.adversarial_after)
        return active * loss, {"discriminator": loss.item()}

    @torch.no_grad()
    def _seed_codebook(self, generator: torch.Generator) -> None:
        """k-means (Lloyd, 10 rounds) on latents of training clips becomes the codebook."""
        self.codec.eval()
        clips = torch.randperm(len(self.train), generator=generator)[:256]
        parts = [self.codec.encode_latents(mel[:, None].to(self.device)) for mel in torch.split(self.train[clips], 16)]
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
        per_step = self.settings.optim.batch_size * (self.crop // self.patch) * (self.train.shape[1] // self.patch)
        scale = per_step / len(latents)
        self.averages.counts.copy_(counts * scale)
        self.averages.sums.copy_(torch.where(counts[:, None] > 0, sums * scale, centres))
        self.codec.quantize.embedding.weight.copy_(centres)

    @torch.no_grad()
    def _update_codebook(self, generator: torch.Generator) -> None:
        latents, averages, decay = self._latents, self.averages, self.settings.codebook_decay
        counts, sums = _gather(latents, self._tokens, len(averages.counts))
        averages.counts.mul_(decay).add_(counts, alpha=1 - decay)
        averages.sums.mul_(decay).add_(sums, alpha=1 - decay)
        dead = averages.counts < self.settings.dead_code_threshold
        # A dead code starts again at a vector that the encoder produces now (Dhariwal et al. 2020).
        restarts = self._draw(latents, int(dead.sum()), generator)
        averages.counts[dead] = max(1.0, self.settings.dead_code_threshold)
        averages.sums[dead] = restarts * averages.counts[dead][:, None]
        self.codec.quantize.embedding.weight.copy_(averages.sums / averages.counts[:, None].clamp(min=1e-5))

    @staticmethod
    def _draw(latents: Tensor, count: int, generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(latents), (count,), generator=generator)
        return latents[picked.to(latents.device)].float()


def _gather(vectors: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Counts (size,) and sums (size, C) of the vectors of each index; as a product, so that the order is fixed."""
    one_hot = F.one_hot(index, size).to(torch.float32)
    return one_hot.sum(0), one_hot.T @ vectors.float()
