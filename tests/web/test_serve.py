import os
import re
import runpy
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from splatsense.errors import DataError
from splatsense.web import app
from splatsense.web.serve import listening_socket, page_link, settings_for
from splatsense.web.settings import WebSettings

ROOT = Path(__file__).parents[2]


def test_the_command_serves_until_it_is_interrupted(indexed):
    command = [sys.executable, "-m", "splatsense", "serve", str(indexed), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            line = server.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line + server.stderr.read()
            assert "10 assets" in line
            with urllib.request.urlopen(address[0], timeout=60) as reply:
                assert b"<title>SplatSense" in reply.read()
        finally:
            server.send_signal(signal.SIGINT)
            _, said = server.communicate(timeout=120)
    assert (server.returncode, said) == (0, "")


def test_a_port_that_is_taken_and_an_address_that_is_none_are_errors():
    with listening_socket("127.0.0.1", 0) as taken, pytest.raises(DataError, match="is taken"):
        listening_socket("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(DataError, match=r"--host no\.such\.host\.invalid"):
        listening_socket("no.such.host.invalid", 0)
    with pytest.raises(DataError, match=r"--host 192\.0\.2\.1"):
        listening_socket("192.0.2.1", 0)


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_port_that_no_machine_has_is_an_error(port):
    with pytest.raises(DataError, match=rf"--port {port}: must lie between 0 and 65535\."):
        listening_socket("127.0.0.1", port)


def test_other_hosts_get_a_token_and_this_one_needs_none():
    assert settings_for("127.0.0.1", None).token is None
    assert settings_for("localhost", None).token is None
    tokens = {settings_for("0.0.0.0", None).token for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32
    assert settings_for("0.0.0.0", "mine").token == "mine"


def test_the_token_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SPLATSENSE_TOKEN", "ours")
    assert settings_for("127.0.0.1", None).token == settings_for("0.0.0.0", None).token == "ours"
    assert settings_for("127.0.0.1", "mine").token == "mine"
    monkeypatch.setenv("SPLATSENSE_TOKEN", "")  # as a script leaves it that could not read it; it must not open the page to all
    with pytest.raises(DataError, match="SPLATSENSE_TOKEN"):
        settings_for("127.0.0.1", None)


def test_the_link_can_be_opened():
    assert page_link(WebSettings(), 8765) == "http://127.0.0.1:8765/"
    assert page_link(WebSettings("::1"), 80) == "http://[::1]:80/"
    assert page_link(WebSettings("0.0.0.0", "t"), 1).endswith(":1/?token=t")
    assert "0.0.0.0" not in page_link(WebSettings("0.0.0.0", "t"), 1)


def test_the_vendored_libraries_are_those_that_npm_published(monkeypatch):
    script = ROOT / "tools" / "vendor_web.py"
    if not script.is_file():
        pytest.skip("tools/ is not installed")
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    with pytest.raises(SystemExit) as status:
        runpy.run_path(str(script), run_name="__main__")
    assert status.value.code == 0


def test_every_import_of_the_page_is_there():
    page = (app.STATIC / "index.html").read_text("utf-8")
    bare = dict(re.findall(r'"([^"]+)": "(/static/[^"]+)"', page))
    for script in (app.STATIC / "js").glob("*.js"):
        for name in re.findall(r'(?:from|import\()\s*"([^"]+)"', script.read_text("utf-8")):
            if name.startswith("./"):
                target = script.parent / name
            else:
                prefix = max((key for key in bare if name == key or (key.endswith("/") and name.startswith(key))), key=len)
                target = app.STATIC / (bare[prefix] + name.removeprefix(prefix)).removeprefix("/static/")
            assert target.is_file(), f"{script.name} imports {name}"
    assert not re.search(r"(?:src|href)=\"https?:", page)
