"""Sound for one's own video: load, generate, save.

foley = Foley.load("params.yaml")
take = foley.generate("clip.mp4", text="hammering nail")[0]
take.save("out/clip")
"""

from specmaskfoley.foley.inpainting import Progress, Stopped
from specmaskfoley.foley.system import Foley
from specmaskfoley.foley.takes import Saved, Take

__all__ = ["Foley", "Progress", "Saved", "Stopped", "Take"]
