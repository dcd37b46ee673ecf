"""Item features: vectors of items from text, images, columns or ready-made files, kept in a directory."""

from nextclick.features.build import Images, build_features
from nextclick.features.store import Dense, Features, Representation, Sparse

__all__ = ["Dense", "Features", "Images", "Representation", "Sparse", "build_features"]
