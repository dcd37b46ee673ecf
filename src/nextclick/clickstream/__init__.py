"""Click logs of any size with the shape of real ones: made in a stream, the same ones for the same seed."""

from nextclick.clickstream.drawing import StreamConfig, generate
from nextclick.clickstream.shape import PowerLaw, Shape, fit_shape

__all__ = ["PowerLaw", "Shape", "StreamConfig", "fit_shape", "generate"]
