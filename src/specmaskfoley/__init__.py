"""SpecMaskFoley: a frozen masked spectrogram transformer, steered by video through one ControlNet branch."""

__version__ = "0.1.0"
