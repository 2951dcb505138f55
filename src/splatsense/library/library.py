"""`Library`: a folder that knows your 3D assets. It adds, lists, draws, forgets, checks and copies them; `Search` finds."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.geometry.upright import AXES, Up
from splatsense.library import thumbnails
from splatsense.library.asset_files import find_files, seen_file
from splatsense.library.duplicates import THRESHOLD, Duplicates, find_duplicates
from splatsense.library.embedding_model import EmbeddingModel, resolve_model
from splatsense.library.ingest import AddReport, Ingest, OnError
from splatsense.library.reading import Reading
from splatsense.library.records import Asset, ModelState
from splatsense.library.search import Search
from splatsense.library.store import Store
from splatsense.library.transfer import Transfer, export_library, import_library
from splatsense.library.vectors import VectorCache
from splatsense.library.verify import VerifyReport, rebuild, verify


class Library(Search):
    """A searchable library of 3D assets, kept in one folder. The assets stay where they are.

    Args:
        path: the library's folder; made when missing, unless `create` is false.
        model: name of a bundled model, folder of a model, or a loaded model.
        create: make a new library if there is none.
        store: postgresql://USER@HOST/DATABASE to share one library among machines; the folder then holds thumbnails and
            caches only. By default everything is in the folder.
        approximate_above: search through FAISS in libraries of more assets than this; by default always exactly. Fewer than
            624 are always searched exactly.
        isolated: read files in processes of their own, so that none can harm this one. False reads them here.

    Raises:
        LibraryError: the folder is not a library, is damaged, locked, not writable, or of a newer version; or the server
            cannot be reached.
        CheckpointError: a library is to be made if need be, and there is no such model.
        DataError: `approximate_above` is negative.

    Example:
        >>> with Library("my_assets") as library:
        ...     library.add("downloads/")
        ...     library.search("wooden chair", k=3)
    """

    def __init__(self, path: str | os.PathLike[str], model: str | Path | EmbeddingModel = "clip-gs-tiny",
                 create: bool = True, store: str | None = None, approximate_above: int | None = None,
                 isolated: bool = True) -> None:  # fmt: skip
        if approximate_above is not None and approximate_above < 0:
            raise DataError(f"--approximate-above {approximate_above}: must not be negative.")
        if create:
            resolve_model(model)  # where it is none, no empty library is left behind
        self.path = Path(os.path.abspath(path))
        super().__init__(Store(self.path, create, store), model, approximate_above, isolated)

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r})"

    def close(self) -> None:
        """Close the library's files. It cannot be used afterwards."""
        self.__dict__.pop("_vectors", None)
        self._store.close()

    def add(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, progress: bool = True,
            on_error: OnError = "report", retry: bool = False, draw: bool = False,
            ray: str | None = None, up: Up | None = None) -> AddReport:  # fmt: skip
        """Index files, and folders with all that is in them.

        Files that are in the library already are passed over, and so are copies of them. It may be interrupted at any
        moment: what is stored is kept, and the same call goes on from there.

        Args:
            paths: one or more files or folders.
            progress: show count, rate and time left on stderr.
            on_error: "report" goes on after a file that cannot be indexed; "raise" raises its error.
            retry: try files again that failed before and have not changed since.
            draw: also draw the thumbnails of new assets; otherwise each is drawn when it is first asked for.
            ray: embed on a Ray cluster: its address, such as "auto" or "ray://host:10001", or "local" for one on this
                machine. Its machines must see the files under the same paths.
            up: which axis of these files points up. It is kept with the assets, for embeddings, pictures and views; those that
                were indexed, or failed, with another are indexed again. "auto" forgets it; None leaves what was said before.

        Raises:
            DataError: `up` or `on_error` is none of these.
            FormatError, OSError: of a file, with `on_error="raise"`.
        """
        if up is not None and up not in ("auto", *AXES):
            raise DataError(f"up must be auto, {', '.join(AXES)}; got {up!r}.")
        if on_error not in get_args(OnError):
            raise DataError(f"on_error must be one of {', '.join(get_args(OnError))}; got {on_error!r}.")
        given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        files, missing, archives = find_files([Path(path) for path in given], self.path)
        if missing and on_error == "raise":
            raise FormatError(f"{missing[0][0]}: {missing[0][1]}.")
        ingest = Ingest(self._store, self.model, self._read, on_error, retry, draw, up)
        if ray is None:
            report = ingest.run(files, progress)
        else:
            from splatsense.library.ray_embedding import embedded_by_ray

            report = ingest.run_elsewhere(files, lambda some: embedded_by_ray(some, self._model, ray, draw), progress)
        report.failed[:0] = missing
        report.archives += archives
        self._vectors.refresh()
        return report

    def assets(self) -> list[Asset]:
        """Every asset that could be read, in the order of their ids."""
        return self._store.all_assets()

    def failures(self) -> list[Asset]:
        """Every file that could not be read, with the reason in `error`."""
        return self._store.all_assets("failed")

    def files(self) -> list[Path]:
        """Every file the library was given and has not forgotten, copies and failed ones too."""
        return [file.path for _, file in self._store.files()]

    def models(self) -> list[ModelState]:
        """The models that have embedded assets of this library, and how many each."""
        return self._store.models()

    def remove(self, asset: Asset | int) -> None:
        """Forget an asset. Its file stays where it is, and is indexed again by the next `add` that meets it.

        Raises:
            LibraryError: there is no asset of this id.
        """
        found = self._found(asset)
        self._store.remove(found.id)
        thumbnails.thumbnail_path(self.path, found.sha256, found.up).unlink(missing_ok=True)

    def forget(self, files: Iterable[Path]) -> list[Path]:
        """Forget files that are gone, and assets of which no file is left; returns those files."""
        gone = list(files)
        if gone:
            self._store.forget_files(gone)
            self._store.drop_unseen()
        return gone

    def forget_missing(self) -> list[Asset]:
        """Forget every asset of which no file exists any more; returns them."""
        missing = [asset for asset in self.assets() if not self._store.places(asset)]
        for asset in missing:
            self.remove(asset)
        return missing

    def duplicates(self, threshold: float = THRESHOLD) -> Duplicates:
        """Files of the same content, and groups of assets whose embeddings are at least `threshold` (cosine) close."""
        return find_duplicates(self._store, self.embeddings(), threshold)

    def verify(self, contents: bool = False) -> VerifyReport:
        """Check everything that is stored, without changing it; `contents` also reads every asset file."""
        return verify(self._store, contents)

    def rebuild(self) -> int:
        """Make the vectors files and FAISS indexes of all models anew, delete damaged and unused thumbnails; returns how many.

        Raises:
            LibraryError: the database itself is damaged.
        """
        self.__dict__.pop("_vectors", None)
        above = self._approximate_above
        return rebuild(self._store, [VectorCache(self._store, m.hash, m.name, above) for m in self.models()])

    def export(self, folder: str | os.PathLike[str], files: bool = True) -> Transfer:
        """Write the whole library into a new folder, with the asset files unless `files` is false."""
        return export_library(self._store, Path(os.path.abspath(folder)), files)

    def import_from(self, folder: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None) -> Transfer:
        """Add what `export` wrote. Asset files are copied to `destination`, by default `assets/` in the library's folder."""
        target = self.path / "assets" if destination is None else Path(os.path.abspath(destination))
        done = import_library(self._store, Path(os.path.abspath(folder)), target)
        self._vectors.refresh()
        return done

    def thumbnail(self, asset: Asset | int) -> Path:
        """A 256-pixel picture of an asset (WebP), drawn on first use and kept in the library.

        Raises:
            LibraryError: its file is gone or has changed.
        """
        found = self._found(asset)
        path = thumbnails.thumbnail_path(self.path, found.sha256, found.up)
        if not path.is_file():
            picture = self.read(found, True).thumbnail
            if picture is None:
                raise DataError(f"{found.path}: nothing in it can be seen.")
            thumbnails.write_bytes(picture, path)
        return path

    def read(self, asset: Asset | int, thumbnail: bool = False) -> Reading:
        """What an asset's file holds, read as by `load`, and a drawn thumbnail if one is asked for.

        Raises:
            FormatError: the file cannot be read.
            LibraryError: it is gone, or holds another content than the one that was indexed.
        """
        found = self._found(asset)
        path = self.file(found)
        reading = self._read(path, thumbnail, found.up).result()
        _check(path, found)  # after the reading, during which it may change too
        return reading

    def file(self, asset: Asset | int, check: bool = False) -> Path:
        """A file of an asset that exists now: where it was seen, or in the same place seen from the library's folder.

        Args:
            asset: the asset, or its id.
            check: read the file, to know that it is still the one that was indexed.

        Raises:
            LibraryError: there is none any more; or, with `check`, it holds something else by now.
        """
        found = self._found(asset)
        places = self._store.places(found)
        if not places:
            raise LibraryError(f"{found.path}: the file is gone; add where it was moved to, or `splatsense library forget`.")
        if check:
            _check(places[0], found)
        return places[0]


def _check(path: Path, asset: Asset) -> None:
    if seen_file(path).sha256 != asset.sha256:
        raise LibraryError(f"{path}: has changed since it was indexed; add it again.")
