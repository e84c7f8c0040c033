"""How a network sounds while it learns: a few validation clips as sounds and spectrograms, in MLflow."""

from __future__ import annotations

from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.backbone.role import Backbone
from specmaskfoley.codec.role import Tokenizer
from specmaskfoley.codec.trained import load_tokenizer
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.media.mel import build_mel, decibels
from specmaskfoley.media.writing import write_audio
from specmaskfoley.report.pictures import spectrograms
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import GuidanceMode, Params
from specmaskfoley.training.session import Session

CLIPS = 3


class Listener:
    """Called after a validation: every `every` steps it samples the first validation clips, with the same seeds.

    The backbone alone is conditioned by the clips' audio prompts, the control branch as cfg.mode says.

    Args:
        every: steps; 0: never.
    """

    def __init__(
        self,
        params: Params,
        here: Session,
        backbone: Backbone,
        control: ControlBranch | None,
        clips: TokenClips,
        *,
        every: int,
    ) -> None:
        self._params, self._here, self._backbone, self._control = params, here, backbone, control
        self._clips, self._every = clips, every
        self._mode: GuidanceMode = "audio" if control is None else params.cfg.mode
        self._tokenizer: Tokenizer | None = None

    def __call__(self, step: int) -> None:
        log, device = self._here.log, self._here.device
        if log is None or not self._every or step % self._every:
            return
        params, count = self._params, min(CLIPS, len(self._clips))
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(params, device)
        sync, semantic = self._clips.sync, self._clips.semantic
        condition = Condition(
            prompt=self._clips.prompt[:count].float().to(device),
            sync=None if sync is None else sync[:count].float().to(device),
            semantic=None if semantic is None else semantic[:count].float().to(device),
        )
        tokens = sample_tokens(
            self._backbone,
            self._control,
            condition,
            plan=guidance_plan(
                self._mode,
                params.sample.steps_of(self._backbone.levels),
                params.cfg.scale,
                params.cfg.start,
                ramp=params.cfg.ramp,
            ),
            settings=params.sample,
            seeds=range(count),
            precision=params.run.precision,
        ).cpu()
        grid = (count, params.grid.rows, params.grid.columns)
        made = self._tokenizer.decode(tokens.view(grid))
        true = self._tokenizer.decode(self._clips.tokens[:count].long().view(grid))
        recipe, out = build_mel(params.audio), self._here.folder / f"heard-{step:08d}"
        for clip_id, coded, wave in zip(self._clips.ids, true, made, strict=False):
            name = clip_id.replace("/", "_")
            waves = {"from the true tokens": coded, f"after {step} steps": wave}
            levels = {title: decibels(recipe, recipe(one[None])[0]).numpy() for title, one in waves.items()}
            spectrograms(out / f"{name}.png", levels, [], params.audio.token_duration_s, clip_id)
            write_audio(out / f"{name}.flac", wave.numpy(), params.audio.sample_rate)
        log.artifact(out, f"{log.stage}/{step:08d}")
