"""Titles and pictures of items, for the page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from nextclick.errors import DataError
from nextclick.filters import ItemTable

_SHOWN = 24  # items on a page
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif"}
_LINK = re.compile(r"(https://[A-Za-z0-9.-]+(?::[0-9]+)?)/")
_COLUMNS = ("title", "category", "subcategory", "brand", "price", "image")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items as the page shows them; pictures lie in the catalogue's folder, or are links to https."""

    folder: Path
    items: dict[str, dict[str, Any]]
    categories: dict[str, list[str]]

    @classmethod
    def open(cls, path: str | Path) -> Catalogue:
        """Read a table of items with the columns title, category, brand, price and image, all optional.

        path: Parquet or CSV, or the folder of a demo shop.  Raises DataError when it cannot be read.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "items.parquet"
        if not path.is_file():
            raise DataError(f"{path}: no such catalogue; name a Parquet or CSV file of items, or a demo shop")
        table = ItemTable.read(path, columns=_COLUMNS)
        ids = [str(item) for item in table.ids.tolist()]
        items: dict[str, dict[str, Any]] = {item: {"id": item, "title": item} for item in ids}
        for name in _COLUMNS:
            if name not in table.columns or table.columns[name].values is None:
                continue
            column = table.columns[name]
            assert column.values is not None
            for item, value, present in zip(
                ids, column.values.tolist(), column.present.tolist(), strict=True
            ):
                if present:
                    items[item][name] = _price(value) if name == "price" else str(value)
        categories: dict[str, list[str]] = {}
        for item, about in items.items():
            categories.setdefault(about.get("category", ""), []).append(item)
        return cls(path.parent, items, dict(sorted(categories.items())))

    @property
    def image_hosts(self) -> tuple[str, ...]:
        """The hosts that pictures are linked from, for the content security policy."""
        links = (_LINK.match(about.get("image", "")) for about in self.items.values())
        return tuple(sorted({link[1] for link in links if link}))

    def some(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return items by id; one that the catalogue lacks is shown by its id."""
        return [self._shown(self.items.get(item, {"id": item, "title": item})) for item in ids]

    def page(self, category: str, page: int) -> dict[str, Any]:
        """Return a page of a category, of all items for ""."""
        ids = self.categories.get(category, []) if category else list(self.items)
        pages = max(1, -(-len(ids) // _SHOWN))
        some = ids[page * _SHOWN : (page + 1) * _SHOWN]
        categories = [name for name in self.categories if name]
        return {"items": self.some(some), "categories": categories, "pages": pages}

    def picture(self, name: str) -> Path | None:
        """Return the file of an item's picture, which must lie below the catalogue's folder."""
        about = self.items.get(name.rpartition(".")[0]) or self.items.get(name)
        image = (about or {}).get("image", "")
        if not image or urlsplit(image).scheme:
            return None
        file = (self.folder / image).resolve()
        inside = file.is_relative_to(self.folder.resolve()) and file.suffix.lower() in _PICTURES
        return file if inside and file.is_file() else None

    def _shown(self, about: dict[str, Any]) -> dict[str, Any]:
        image = about.get("image", "")
        if image and not image.startswith("https://"):
            image = f"pictures/{quote(about['id'], safe='')}"
        return {**about, "image": image}


def _price(value: Any) -> float | str:
    """Return a price as a number, which CSV has as text, or what else stands there."""
    try:
        price = float(value)
    except ValueError:
        return str(value)
    return price if math.isfinite(price) else str(value)
