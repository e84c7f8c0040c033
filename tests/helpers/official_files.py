"""Weight files in the formats of the official ones, filled by the golden rule: what the real loading code reads.

Only tensors that our networks use are written (and a few of the parts that loaders must ignore), so that a folder of
them takes 6 GB instead of 13.
"""

from __future__ import annotations

import io
import json
import string
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from helpers import ROOT
from helpers.golden_rule import Golden, golden_tensor
from specmaskfoley.encoders.t5 import T5_LARGE
from specmaskfoley.settings import Params

SPECVQGAN = Params.load(ROOT / "params.yaml", "vggsound").codec
"""The sizes of the public codebook's codec."""
CHECKSUMS = ("size", "sha256", "md5", "git_sha1")


def write_lock(path: Path) -> None:
    """weights.lock.yaml without what only the true files can be."""
    lock = yaml.safe_load((ROOT / "weights.lock.yaml").read_text(encoding="utf-8"))
    bare = {name: {k: v for k, v in entry.items() if k not in CHECKSUMS} for name, entry in lock.items()}
    path.write_text(yaml.safe_dump(bare, sort_keys=False), encoding="utf-8")


def write_official(names: list[str], folder: Path, golden: Golden) -> None:
    """The files of these lock entries, where a bundle has them."""
    lock = yaml.safe_load((ROOT / "weights.lock.yaml").read_text(encoding="utf-8"))
    for name in names:
        target = folder / lock[name]["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[name](target, golden)


def bare(manifest: str, *prefixes: str, extra: dict[str, list[int]] | None = None) -> Callable[[Path, Golden], None]:
    """A state dict as it is; `extra` names tensors of parts that the loader leaves out."""

    def write(target: Path, golden: Golden) -> None:
        tensors = golden.weights(manifest, prefixes or ("",))
        torch.save(tensors | {key: torch.zeros(shape) for key, shape in (extra or {}).items()}, target)

    return write


def by_names(build: Callable[[], torch.nn.Module]) -> dict[str, Tensor]:
    """Weights by rule for a network whose official names no manifest lists."""
    with torch.device("meta"):
        shapes = {key: list(value.shape) for key, value in build().state_dict().items()}
    return {key: golden_tensor(key, shape) for key, shape in shapes.items()}


def bigvgan(target: Path, golden: Golden) -> None:
    from specmaskfoley.vocoders.bigvgan import BigVGAN

    torch.save({"generator": by_names(BigVGAN)}, target)


def exported(manifest: str, dtype: torch.dtype) -> Callable[[Path, Golden], None]:
    """A checkpoint as AudioCraft exports it."""

    def write(target: Path, golden: Golden) -> None:
        weights = {key: value.to(dtype) for key, value in golden.weights(manifest).items()}
        settings = "transformer_lm:\n  n_q: 4\n"
        torch.save({"best_state": weights, "xp.cfg": settings, "version": "1.3.0a1", "exported": True}, target)

    return write


def t5(target: Path, golden: Golden | None = None, sizes: Mapping[str, int] = T5_LARGE) -> None:
    """The encoder and, as a part that is left out, the decoder's last norm."""
    import transformers

    def encoder() -> torch.nn.Module:
        return transformers.T5EncoderModel(transformers.T5Config(**sizes))

    weights = by_names(encoder) | {"decoder.final_layer_norm.weight": torch.ones(sizes["d_model"])}
    del weights["encoder.embed_tokens.weight"]  # the same as shared.weight, and not in the official file
    save_file(weights, target, metadata={"format": "pt"})


T5_WORDS = ("a", "dog", "barks", "rain")
"""Those that a tokenizer made here knows whole."""


def t5_tokenizer(target: Path, golden: Golden | None = None) -> None:
    """A tokenizer.json built as T5's: pieces of a text by their likelihood, behind them `</s>`.

    The ids of `<pad>`, `</s>` and `<unk>` are 0, 1, 2, those of T5_WORDS 8 and following.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    others = sorted(set(string.ascii_lowercase) - set("snio"))
    pieces = ["▁", *"snio", *(f"▁{word}" for word in T5_WORDS), *others]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -2.0) for piece in pieces)]
    made = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    space = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
    made.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    made.save(str(target))


def clip(target: Path, golden: Golden) -> None:
    visual = golden.weights("dfn5b_clip_vit_h14_visual")
    names = {key if key.startswith("visual.") else f"visual.{key}": value for key, value in visual.items()}
    torch.save(names | {"logit_scale": torch.zeros(()), "token_embedding.weight": torch.zeros(2, 2)}, target)


def clap(target: Path, golden: Golden) -> None:
    from specmaskfoley.encoders.clap import ClapEncoder

    made = ClapEncoder(target.parent / "roberta-base").state_dict()
    weights = {f"module.{key}": golden_tensor(key, value.shape) for key, value in made.items()}
    torch.save({"epoch": 15, "best": np.float64(0.5), "state_dict": weights}, target)


def specvqgan(target: Path, golden: Golden) -> None:
    weights = golden.weights("specvqgan_vggsound_codebook") | {"loss.discriminator.bias": torch.zeros(3)}
    buffer = io.BytesIO()
    torch.save({"epoch": 39, "state_dict": weights}, buffer)
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo("2021-05-19T22-16-54_vggsound_codebook/checkpoints/epoch_39.ckpt")
        member.size = buffer.tell()
        buffer.seek(0)
        archive.addfile(member, buffer)


def roberta_file(name: str) -> Callable[[Path, Golden], None]:
    def write(target: Path, golden: Golden) -> None:
        target.write_text(roberta_base()[name], encoding="utf-8")

    return write


def roberta_base() -> dict[str, Any]:
    """A byte-level tokenizer without merges, and the true sizes of roberta-base but for the vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spare = iter(range(256, 512))
    symbols = [chr(byte if byte in printable else next(spare)) for byte in range(256)]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *symbols, "<mask>"]
    config = {
        "model_type": "roberta",
        "vocab_size": len(tokens),
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-05,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    return {
        "vocab.json": json.dumps({token: index for index, token in enumerate(tokens)}),
        "merges.txt": "#version: 0.2\n",
        "config.json": json.dumps(config),
    }


WRITERS: dict[str, Callable[[Path, Golden], None]] = {
    "roberta_base_vocab": roberta_file("vocab.json"),
    "roberta_base_merges": roberta_file("merges.txt"),
    "roberta_base_config": roberta_file("config.json"),
    "magnet_small": exported("magnet_lm_small", torch.float16),
    "encodec_16khz": exported("encodec16", torch.float32),
    "t5_large": t5,
    "t5_large_tokenizer": t5_tokenizer,
    "synchformer": bare("synchformer"),
    "dfn5b_clip": clip,
    "clap": clap,
    "specvqgan_vggsound": specvqgan,
    "bigvgan_22khz_80band": bigvgan,
    "passt": bare("passt_s_ap476"),
    "vggish": bare("vggish"),
    "imagebind": bare("imagebind_huge", "modality_preprocessors.vision", "modality_preprocessors.audio",
                      "modality_trunks.vision", "modality_trunks.audio", "modality_heads.vision",
                      "modality_heads.audio", "modality_postprocessors.vision", "modality_postprocessors.audio"),
}  # fmt: skip
