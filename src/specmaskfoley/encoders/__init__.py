"""Feature encoders by role: sync (Synchformer), semantic (CLIP), prompt (CLAP).

`encoders.<role>.kind` in params.yaml names the implementation; a new one is one file and one line here.
"""

from __future__ import annotations

from specmaskfoley.config import Params
from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder

SYNC = {"mini": SyncEncoder}
SEMANTIC = {"mini": SemanticEncoder}
PROMPT = {"mini": PromptEncoder}


def build_sync(params: Params) -> SyncEncoder:
    settings = params.encoders.sync
    return SYNC[settings.kind](settings, params.audio.num_mels)


def build_semantic(params: Params) -> SemanticEncoder:
    settings = params.encoders.semantic
    return SEMANTIC[settings.kind](settings)


def build_prompt(params: Params) -> PromptEncoder:
    settings = params.encoders.prompt
    return PROMPT[settings.kind](settings, params.audio.num_mels)
