"""Item features: vectors of items from text, images, columns or ready-made files, kept in a directory."""

from nextclick.features.build import Images, Recipe, build_features
from nextclick.features.store import Dense, Features, Representation, Sparse

__all__ = ["Dense", "Features", "Images", "Recipe", "Representation", "Sparse", "build_features"]
