"""What worker processes read of clips in tests; see pool_work."""

import numpy as np

from specmaskfoley.media.clips import read_clip


def statistics(views, sound, path):
    """What reading by both views gives: shapes, and whether the sound is finite and somewhere not zero."""
    frames, waves = read_clip(path, views, (sound,))
    wave = waves[sound]
    return [*(frames[view].shape for view in views), wave.shape], bool(np.isfinite(wave).all() and wave.any())
