"""A library of 3D assets on disk: index a folder once, then search it by words, a picture or another asset.

`search.Library` is what people use. Beneath it: `store` (SQLite, the truth), `index` (exact nearest neighbours),
`ingest` (reading and embedding files), `tags` (zero-shot labels), `thumbnails`, `names`.
"""

from splatsense.library.ingest import AddReport
from splatsense.library.search import Hit, Library
from splatsense.library.store import Asset

__all__ = ["AddReport", "Asset", "Hit", "Library"]
