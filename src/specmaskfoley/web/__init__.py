"""The page of `specmaskfoley web`: sound for one's own video in the browser of this machine."""
