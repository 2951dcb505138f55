"""Fetch the browser libraries that the page uses into src/splatsense/web/static/vendor/, exactly as npm published them.

    python tools/vendor_web.py           # npm must be installed
    python tools/vendor_web.py --check   # compare what is there with the hashes below; needs no network

Design
- `PACKAGES` names exact versions and npm's own hash of each package; a package that differs is refused.
- Files are copied byte for byte; the page finds them through its import map.
- `static/vendor/hashes.json` lists the sha256 of every file, so that a test sees any change.
"""

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src" / "splatsense" / "web" / "static" / "vendor"
HASHES = VENDOR / "hashes.json"


@dataclass(frozen=True)
class Package:
    """A package of npm.

    Attributes:
        name: of the package.
        version: exact.
        integrity: what `npm view NAME@VERSION dist.integrity` says.
        files: path in the package -> path under `VENDOR`.
    """

    name: str
    version: str
    integrity: str
    files: dict[str, str]


PACKAGES = (
    Package(
        "three",
        "0.180.0",  # the version that this Spark was built and tested with
        "sha512-o+qycAMZrh+TsE01GqWUxUIKR1AL0S8pq7zDkYOQw8GqfX8b8VoCKYUoHbhiX5j+7hr8XsuHDVU6+gkQJQKg9w==",
        {
            "build/three.module.min.js": "three/three.module.min.js",
            "build/three.core.min.js": "three/three.core.min.js",
            "examples/jsm/controls/OrbitControls.js": "three/addons/controls/OrbitControls.js",
            "examples/jsm/postprocessing/Pass.js": "three/addons/postprocessing/Pass.js",
            "LICENSE": "three/LICENSE",
        },
    ),
    Package(
        "@sparkjsdev/spark",
        "2.2.0",
        "sha512-wf5F2YAmPXnjm20/MgXYer9FQTXz2JOCo05HwxFkaD7Guk9rHVPIwdJ6fq0oF9ME0heMvYj+TxS6DTrucvy6KA==",
        {"dist/spark.module.min.js": "spark/spark.module.min.js", "LICENSE": "spark/LICENSE"},
    ),
)


def main() -> int:
    """Fetch, or only check; 1 when a file differs from its hash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare the files with their hashes")
    if not parser.parse_args().check:
        for package in PACKAGES:
            fetch(package)
        HASHES.write_text(json.dumps(present(), indent=1) + "\n")
    expected, found = json.loads(HASHES.read_text()), present()
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    for name in wrong:
        print(f"{VENDOR / name}: differs from {HASHES.name}; run `python tools/vendor_web.py`.", file=sys.stderr)
    return 1 if wrong else 0


def fetch(package: Package) -> None:
    """Download a package, compare it with its hash and copy its files."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != package.integrity:
            raise SystemExit(f"{spec}: has the hash {found}, expected {package.integrity}; refused.")
        with tarfile.open(archive) as opened:
            for source, target in package.files.items():
                member = opened.extractfile(f"package/{source}")
                if member is None:
                    raise SystemExit(f"{spec}: {source} is not a file.")
                path = VENDOR / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.read())
    print(f"{spec}: {len(package.files)} files")


def present() -> dict[str, str]:
    """The sha256 of every vendored file."""
    files = sorted(path for path in VENDOR.rglob("*") if path.is_file() and path != HASHES)
    return {str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    sys.exit(main())
