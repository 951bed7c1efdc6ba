"""The planted shop: drawn pictures, written titles and users whose taste is known. Data for demos and known answers."""

from modalmix.data.shop.config import ShopConfig
from modalmix.data.shop.planted import Shop, plant
from modalmix.data.shop.truth import GROUPS, STATES, Truth
from modalmix.data.shop.write import write_shop

__all__ = ["GROUPS", "STATES", "Shop", "ShopConfig", "Truth", "plant", "write_shop"]
