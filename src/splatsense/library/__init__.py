"""A library of 3D assets on disk: index a folder once, then search it by words, a picture or another asset.

`library.Library` is what people use; `search` is its larger half. Beneath it: `store` (the truth, in a `database`: SQLite or
PostgreSQL; its `records`), `vectors` (exact nearest neighbours over an `index`, approximate ones in `approximate`), `ingest`
(embedding files; `asset_files` finds them, `reading` keeps strangers' files in processes of their own), `duplicates`,
`verify`, `transfer` (export and import; `export_listing`), `watch`, `tags` (zero-shot labels), `thumbnails`, `names`.
"""

from splatsense.library.ingest import AddReport
from splatsense.library.library import Library
from splatsense.library.records import Asset
from splatsense.library.search import Hit

__all__ = ["AddReport", "Asset", "Hit", "Library"]
