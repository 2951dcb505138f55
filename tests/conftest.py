"""For every test: shapes and types are checked at run time, random examples are the same in each run, the network is out
of reach, a native build that failed is not taken for one that was not wanted, and GPUs are for the tests that are marked so."""

import os
import shutil
import signal
import socket

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: threads that spin ruin a shared machine

# Before the first import of splatsense: from here on a call with a wrong shape or type fails.
install_import_hook("splatsense", "typechecking.check")

from splatsense.native import load_native  # noqa: E402  # after the hook

settings.register_profile("splatsense", derandomize=True, deadline=None)
settings.load_profile("splatsense")

COMPILERS = ("c++", "g++", "clang++")


def pytest_configure(config: pytest.Config) -> None:
    """Training takes a GPU where there is one, whose sums differ from run to run: only `-m gpu` shows it to the tests."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where a compiler is, a missing native library means its build failed unseen: say so instead of skipping."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs, whose children would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler and os.environ.get("SPLATSENSE_NATIVE") != "off" and load_native() is None:
        pytest.exit(
            f"The native library is missing although {compiler} can build it, so its build failed silently. "
            "Run `make native` (or `pip install -v .`) and read the compiler's output, "
            "or set SPLATSENSE_NATIVE=off to test plain PyTorch alone.",
            returncode=1,
        )


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only loopback and local sockets may be connected to."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A CLIP-GS model with random weights: all of it runs, its answers mean nothing."""
    import torch

    from splatsense.clip_gs.encoder import GaussianEncoder, encoder_config
    from splatsense.clip_gs.model import save_model
    from splatsense.teachers import load_teacher

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    teacher = load_teacher("mini")
    network = GaussianEncoder(encoder_config("tiny", teacher.dim))
    save_model(folder, network, "random", teacher, {}, torch.zeros(teacher.dim))
    return str(folder)
