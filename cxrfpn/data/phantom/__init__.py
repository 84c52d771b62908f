"""Phantoms: synthetic frontal chest radiographs with findings and boxes, for tests, smoke runs and examples."""

from cxrfpn.data.phantom.drawing import draw_phantom
from cxrfpn.data.phantom.source import PhantomSource

__all__ = ["PhantomSource", "draw_phantom"]
