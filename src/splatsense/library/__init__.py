"""A library of 3D assets on disk: index a folder once, then search it by words, a picture or another asset.

`search.Library` is what people use. Beneath it: `store` (the truth, in SQLite or PostgreSQL), `vectors` (exact nearest
neighbours, approximate ones in `approximate`), `ingest` (reading and embedding files; `reading` keeps strangers' files in
processes of their own), `duplicates`, `verify`, `transfer` (export and import), `watch`, `tags` (zero-shot labels),
`thumbnails`, `names`.
"""

from splatsense.library.ingest import AddReport
from splatsense.library.search import Hit, Library
from splatsense.library.store import Asset

__all__ = ["AddReport", "Asset", "Hit", "Library"]
