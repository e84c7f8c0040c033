"""params.yaml as frozen, typed settings: parsed once, unknown keys and wrong types are errors.

The top level of params.yaml holds what users sweep (`data`, `seed`, and `cfg` and `sample`, which override the
profile's); everything that depends on the scale lives under `profiles.<profile>` and is merged in here, so that
the rest of the code never asks which profile runs.
"""

from specmaskfoley.settings.base import Finite, Fraction, NonNegative, Positive, PositiveFloat, Settings, first_problem
from specmaskfoley.settings.data import Data, Fetch, Paths, Prepare, SplitLimits, Weights, World
from specmaskfoley.settings.encoders import (
    T5,
    Clap,
    DFN5BClip,
    Encoders,
    MiniPromptEncoder,
    MiniVideoEncoder,
    PromptEncoder,
    SemanticEncoder,
    SyncEncoder,
    Synchformer,
)
from specmaskfoley.settings.generator import (
    Backbone,
    Codec,
    Control,
    Encodec,
    GriffinLim,
    Magnet,
    NeuralVocoder,
    SpecMaskGIT,
    SpecVQGAN,
    TrainCodec,
    TrainMasked,
    Vocoder,
)
from specmaskfoley.settings.judges import Evaluate, Judges, MiniJudges, OfficialWeights, PaperJudges
from specmaskfoley.settings.media import (
    HIFIGAN_RECIPE,
    SPECVQGAN_RECIPE,
    Audio,
    Fit,
    FrameRule,
    TokenGrid,
    Video,
    recipe_text,
)
from specmaskfoley.settings.params import OFFICIAL_VIEWS, VOCODER_MELS, Params, weights_of
from specmaskfoley.settings.run import Run, Training
from specmaskfoley.settings.sampling import GUIDANCE_MODES, Decoding, Guidance, GuidanceMode, Ramp, Sample, Sampling
