"""The mini world: short procedural scenes whose look tells the sound and whose motion tells the time."""

from specmaskfoley.clips.world.render import LABELS, WorldClip, render_clip

__all__ = ["LABELS", "WorldClip", "render_clip"]
