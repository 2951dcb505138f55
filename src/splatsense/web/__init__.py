"""The library as a page in the browser, and the JSON behind it.

`serve.serve` is `splatsense serve LIBRARY`; `app.create_app` builds the application. Beneath: `guard` (who may ask, and how
much), `protocol` (how long a request may take to begin), `replies` (errors as JSON), `services` (what the routes share),
`catalogue` (facts of all assets for filters and the map), `searching` (queries and their mixtures), `jobs` (long work with
progress), `uploads`, `conversions`, `scenes` (what models see in a scene, with `scene_models` and `scene_cache`), one module
of routes for each topic in `routes/`, and the page in `static/`: plain ES modules, with three.js and Spark as npm publishes
them (`tools/vendor_web.py`).
"""
