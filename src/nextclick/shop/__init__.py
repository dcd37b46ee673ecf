"""The demo shop: a seeded simulator of products, visitors and their clicks.

``simulate(ShopConfig()).write(folder)`` makes a click log, a catalogue with texts and thumbnails, and
the truth behind every click.  What is in it, and what is not, stands in docs/simulator.md.
"""

from nextclick.shop.config import ShopConfig
from nextclick.shop.shop import Shop, simulate

__all__ = ["Shop", "ShopConfig", "simulate"]
