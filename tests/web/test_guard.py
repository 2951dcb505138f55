import re
import threading
from typing import get_args

import pytest

from splatsense.errors import DataError
from splatsense.geometry.upright import Up
from splatsense.library import Library
from splatsense.web.serve import page_link
from splatsense.web.settings import WebSettings
from web.conftest import app_client, raw_request, serving, wait_until

STRANGER = {"origin": "https://evil.example"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1:8765", "", "[", "a@127.0.0.1"]
)
def test_a_name_that_is_not_ours_is_refused(shared_client, host):
    for path in ("/", "/api/library", "/static/style.css"):
        reply = shared_client.get(path, headers={"host": host})
        assert (reply.status_code, reply.json()["error"]["status"]) == (421, 421)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]:8765"])
def test_our_own_names_are_known(shared_client, host):
    assert shared_client.get("/api/library", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8765", "http://localhost:8765"]
)
def test_what_another_page_writes_is_refused(client, origin):
    for method, path in (
        ("POST", "/api/jobs"),
        ("POST", "/api/uploads"),
        ("DELETE", "/api/jobs/x"),
        ("PUT", "/api/uploads/x/files"),
    ):
        assert client.request(method, path, headers={"origin": origin}).status_code == 403
    own = client.post("/api/uploads", headers={"origin": "http://127.0.0.1:8765"})
    assert own.status_code == 201


def test_what_another_page_reads_is_refused_but_a_link_to_the_page_works(shared_client):
    for site in ("cross-site", "same-site"):
        image = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        assert shared_client.get("/api/assets/1/thumbnail", headers=image).status_code == 403
        link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
        assert shared_client.get("/", headers=link).status_code == 200
        assert shared_client.post("/api/uploads", headers=link).status_code == 403
    assert shared_client.get("/api/library", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_no_reply_allows_another_origin_and_all_carry_the_policy(shared_client):
    replies = [
        shared_client.get(path, headers=STRANGER) for path in ("/", "/api/library", "/api/assets/1/thumbnail", "/nothing")
    ]
    replies += [shared_client.options("/api/jobs", headers=STRANGER | {"access-control-request-method": "POST"})]
    for reply in replies:
        assert not [name for name in reply.headers if name.startswith("access-control")]
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "http" not in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/%2e%2e%2f%2e%2e%2ferrors.py",
     "/static//etc/passwd", "/static/js/%00main.js", "/static/..\\app.py", "/static/js", "/../../etc/passwd", "/api/../app.py"],
)  # fmt: skip
def test_paths_lead_nowhere_else(indexed, path):
    with Library(indexed) as library, serving(library) as address:
        host = address.removeprefix("http://")
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        reply = raw_request(address, request.encode())
    status = int(reply.split(b" ", 2)[1])
    assert status in (400, 404, 405)
    assert b"root:" not in reply
    assert b"create_app" not in reply


def test_a_link_out_of_the_static_folder_is_not_followed(indexed, tmp_path, monkeypatch):
    import shutil

    from splatsense.web import app as app_module

    static = shutil.copytree(app_module.STATIC, tmp_path / "static")
    (tmp_path / "secret.txt").write_text("secret")
    (static / "link.txt").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr(app_module, "STATIC", static)
    with Library(indexed) as library, app_client(library) as client:
        assert client.get("/static/style.css").status_code == 200
        assert client.get("/static/link.txt").status_code == 404


def test_other_addresses_need_the_token(indexed):
    with pytest.raises(DataError, match="needs a token"):
        WebSettings("0.0.0.0")
    with Library(indexed) as library, app_client(library, WebSettings("0.0.0.0", token="s3cret")) as client:
        assert client.get("/api/library").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/api/library", headers={"authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/api/library", headers={"host": "evil.example"}).status_code == 421
        assert (
            client.get("/api/library", headers={"host": "192.168.1.9:8765", "authorization": "Bearer s3cret"}).status_code
            == 200
        )
        landed = client.get("/?token=s3cret", follow_redirects=False)
        assert (landed.status_code, landed.headers["location"]) == (303, "/")
        assert "HttpOnly" in landed.headers["set-cookie"]
        assert "SameSite=strict" in landed.headers["set-cookie"]
        assert client.get("/api/library").status_code == 200
        assert client.post("/api/jobs", json={"path": "/"}).status_code == 403


def test_the_link_and_the_cookie_hold_any_token(indexed):
    settings = WebSettings(token="9+/kQ==&#;é %2B")  # such as `openssl rand -base64` makes, and worse
    with Library(indexed) as library, app_client(library, settings) as client:
        assert client.get("/api/library").status_code == 401
        assert client.get(page_link(settings, 8765), follow_redirects=False).status_code == 303
        assert client.get("/api/library").status_code == 200


def test_a_request_that_stalls_is_given_up_and_others_go_on(indexed):
    with Library(indexed) as library, serving(library, WebSettings(silence_seconds=0.3)) as address:
        host = address.removeprefix("http://")
        head = f"POST /api/search HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        replies: list[bytes] = []
        stalled = threading.Thread(target=lambda: replies.append(raw_request(address, head.encode())))
        stalled.start()
        other = raw_request(address, f"GET /api/library HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert b" 200 " in other.split(b"\r\n")[0]
        stalled.join(60)
    assert b" 408 " in replies[0].split(b"\r\n")[0]


def test_a_head_that_never_ends_is_hung_up_on(indexed, monkeypatch):
    monkeypatch.setattr("splatsense.web.protocol.HEAD_SECONDS", 0.5)
    with Library(indexed) as library, serving(library) as address:
        host = address.removeprefix("http://")
        assert raw_request(address, b"GET / HTTP/1.1\r\nHo") == b""
        request = f"GET /api/jobs HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        twice = raw_request(address, request + request + b"GET /unfinished")
        assert twice.count(b"HTTP/1.1 200 OK") == 2


def test_an_upload_that_breaks_off_leaves_nothing(library_copy):
    import socket

    with Library(library_copy) as library, serving(library) as address:
        import urllib.request

        begun = urllib.request.Request(f"{address}/api/uploads", method="POST")
        with urllib.request.urlopen(begun) as reply:
            identity = re.search(rb'"id":"(\w+)"', reply.read())[1].decode()
        host, port = address.removeprefix("http://").split(":")
        head = (
            f"PUT /api/uploads/{identity}/files?name=a.ply HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n\r\nabc"
        )
        folder = library_copy / "uploads" / identity
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode())
            wait_until(lambda: list(folder.iterdir()))
        wait_until(lambda: not list(folder.iterdir()))


def test_fifty_search_at_once_without_an_error(indexed):
    import urllib.request

    with Library(indexed) as library, serving(library) as address:
        failures: list[object] = []

        def search(number: int) -> None:
            try:
                with urllib.request.urlopen(f"{address}/api/search?q=thing+{number % 7}", timeout=120) as reply:
                    assert b'"results":[{' in reply.read()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=search, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_an_unexpected_error_has_an_id_that_is_in_the_log(indexed, monkeypatch, caplog):
    from splatsense.web.searching import Searching

    monkeypatch.setattr(Searching, "find", lambda *args: 1 / 0)
    with Library(indexed) as library, app_client(library) as client:
        reply = client.get("/api/search", params={"q": "a"})
        assert reply.status_code == 500
        error = reply.json()["error"]
        assert "division" not in error["message"]
        assert error["id"] in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert client.get("/api/library").status_code == 200


def test_the_api_is_described(shared_client):
    described = shared_client.get("/api/openapi.json").json()
    assert {"/api/search", "/api/assets/{asset_id}", "/api/jobs/{identity}/events"} <= described["paths"].keys()
    for path in described["paths"].values():
        for operation in path.values():
            assert operation["description"]
    for request in ("IndexRequest", "FolderRequest"):
        up, _ = described["components"]["schemas"][request]["properties"]["up"]["anyOf"]
        assert up["enum"] == list(get_args(Up))


def test_stopping_the_server_ends_its_jobs(library_copy, tmp_path):
    before = set(threading.enumerate())
    with Library(library_copy) as library, app_client(library) as client:
        client.post("/api/jobs", json={"path": str(tmp_path)})
        assert [thread for thread in set(threading.enumerate()) - before if thread.name == "indexing"]
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "indexing"]
