"""The library as a page in the browser, and the JSON behind it.

`serve.serve` is `splatsense serve LIBRARY`; `app.create_app` builds the application. Beneath: `guard` (who may ask, and how
much), `protocol` (how long a request may take to begin), `replies` (errors as JSON), `services` (what the routes share),
`catalogue` (facts of all assets for filters and the map), `searching` (queries and their mixtures), `jobs` (indexing with
progress), `uploads`, `conversions`, one module of routes for each topic in `routes/`, and the page in `static/`: plain ES
modules, with three.js and Spark as npm publishes them (`tools/vendor_web.py`).
"""
