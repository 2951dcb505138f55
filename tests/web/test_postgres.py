"""The page over a library in PostgreSQL, on a real server that the test starts."""

import os
import re
import subprocess
import sys
import urllib.request

from library.conftest import postgres, postgres_server  # noqa: F401
from splatsense.library import Library
from web.conftest import CHOSEN, OBJECTS, app_client, events_of


def test_the_page_shows_a_library_in_postgresql(postgres, objects, tmp_path):  # noqa: F811
    with Library(tmp_path / "library", store=postgres) as library:
        assert library.add(objects, progress=False).indexed == len(CHOSEN)
        with app_client(library) as client:
            assert client.get("/api/library").json()["assets"] == len(CHOSEN)
            parts = [{"text": "a wooden chair"}]
            found = client.post("/api/search", json={"parts": parts}).json()["results"]
            assert found[0]["name"] == "oak chair"
            mixed = client.post("/api/search", json={"parts": [*parts, {"asset": found[-1]["id"], "weight": 0.5}]}).json()
            assert len(mixed["results"]) == len(CHOSEN)
            assert len(client.get("/api/map").json()["ids"]) == len(CHOSEN)
            assert client.get(f"/api/assets/{found[0]['id']}/thumbnail").status_code == 200
            upload = client.post("/api/uploads").json()["id"]
            stool = (OBJECTS / "stool.splat").read_bytes()
            assert client.put(f"/api/uploads/{upload}/files", params={"name": "stool.splat"}, content=stool).status_code == 201
            final = events_of(client, client.post(f"/api/uploads/{upload}/index").json()["id"])[-1]
            assert (final["status"], final["indexed"]) == ("done", 1)
            with Library(tmp_path / "elsewhere", store=postgres, create=False) as other:
                assert len(other) == len(CHOSEN) + 1
    assert not (tmp_path / "library" / "library.sqlite").exists()


def test_the_command_serves_a_library_in_postgresql(postgres, objects, tmp_path):  # noqa: F811
    with Library(tmp_path / "library", store=postgres) as library:
        library.add(sorted(objects.rglob("*.splat"))[:2], progress=False)
    command = [sys.executable, "-m", "splatsense", "serve", str(tmp_path / "library"), "--port", "0", "--store", postgres]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            line = server.stdout.readline()
            assert "2 assets" in line
            with urllib.request.urlopen(re.search(r"http://\S+/", line)[0] + "api/library", timeout=60) as reply:
                assert b'"assets":2' in reply.read()
        finally:
            server.terminate()
