"""What the page's server allows: addresses, sizes and times."""

import ipaddress
import socket
from dataclasses import dataclass

from splatsense.errors import DataError
from splatsense.upright import SCENE_GAUSSIANS

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True)
class WebSettings:
    """Limits of the page's server.

    Attributes:
        host: address it listens on.
        token: whoever has it may use the page; None for no token, which only a loopback address allows.
        upload_bytes: most that one uploaded file may hold.
        upload_files: most files of one upload.
        waiting_uploads: most uploads that are open, or wait to be indexed, at once.
        waiting_bytes: most that these may hold together.
        waiting_jobs: most runs that wait at once.
        idle_seconds: an open upload to which nothing came for this long is deleted when there are too many.
        query_bytes: most that a picture or an asset to search by may hold.
        request_bytes: most that any other request may hold.
        free_bytes: of the disk that uploads leave.
        silence_seconds: how long a client may send nothing in the middle of a request.
        request_seconds: how long a request may take to arrive.
        cache_bytes: most that converted files may take in the temporary folder.
        scene_gaussians: an asset of this many is taken for a scene.
        scene_most: most Gaussians of a scene that models look into.
        scene_cache_bytes: most that what was computed of scenes may take in the library's folder.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    upload_bytes: int = 2 << 30
    upload_files: int = 2_000
    waiting_uploads: int = 32
    waiting_bytes: int = 16 << 30
    waiting_jobs: int = 100
    idle_seconds: float = 900.0
    query_bytes: int = 512 << 20
    request_bytes: int = 1 << 20
    free_bytes: int = 1 << 30
    silence_seconds: float = 30.0
    request_seconds: float = 3_600.0
    cache_bytes: int = 2 << 30
    scene_gaussians: int = SCENE_GAUSSIANS
    scene_most: int = 3_000_000
    scene_cache_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise DataError("the token (--token or SPLATSENSE_TOKEN) is empty; give one, or neither of the two.")
        if not self.is_local and not self.token:
            raise DataError(f"--host {self.host}: other machines could reach this address; that needs a token.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def knows_host(self, name: str) -> bool:
        """Whether a request may name this host, without its port.

        A page of a stranger can make its own name point here (DNS rebinding), but it cannot make the browser say another
        name; an address is no such name.
        """
        if name in LOOPBACK_NAMES or name == self.host:
            return True
        if self.is_local:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in {socket.gethostname().lower(), socket.getfqdn().lower()}
        return True
