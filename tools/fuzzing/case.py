"""What is fuzzed: the files of one asset, in memory."""

from dataclasses import dataclass, replace
from pathlib import Path

Files = tuple[str, dict[str, bytes]]
"""The name of a main file, and the bytes of it and its companions by name."""


@dataclass(frozen=True)
class Case:
    """One asset.

    Attributes:
        kind: the format, as `splatsense.io._sniffing.sniff` names it for the undamaged seed.
        main: name of the file that is loaded.
        files: bytes by name; more than one where an asset refers to others (materials, textures, buffers).
    """

    kind: str
    main: str
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(map(len, self.files.values()))

    def with_file(self, name: str, data: bytes) -> "Case":
        """The same case with other bytes in one file."""
        return replace(self, files=self.files | {name: data})

    def renamed(self, main: str) -> "Case":
        """The same case with its main file under another name."""
        others = {name: data for name, data in self.files.items() if name != self.main}
        return replace(self, main=main, files=others | {main: self.files[self.main]})

    def write(self, folder: Path) -> Path:
        """Put the files into `folder`; returns the path of the main one."""
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder / self.main

    @classmethod
    def read(cls, kind: str, main: Path) -> "Case":
        """The case of `main` and everything beside it and below."""
        found = [path for path in main.parent.rglob("*") if path.is_file()]
        return cls(kind, main.name, {str(path.relative_to(main.parent)): path.read_bytes() for path in found})
