import asyncio
import json
import shutil
import threading
from typing import get_args

import pytest
from starlette.requests import Request

from splatsense.errors import DataError
from splatsense.geometry.upright import Up
from splatsense.library import Library
from splatsense.web.jobs import PORTION_FILES, Indexing, Job
from splatsense.web.routes.jobs import _states
from splatsense.web.settings import WebSettings
from splatsense.web.uploads import Uploads, checked_name
from web.conftest import CHOSEN, OBJECTS, app_client, events_of, wait_until

NEW = ("stool", "bench", "desk")


def upload(client, files: dict[str, bytes]):
    identity = client.post("/api/uploads").json()["id"]
    replies = [
        client.put(f"/api/uploads/{identity}/files", params={"name": name}, content=data) for name, data in files.items()
    ]
    return identity, [reply.status_code for reply in replies]


def test_uploaded_files_are_indexed_and_found(client, library_copy):
    identity, statuses = upload(client, {f"mine/{name}.splat": (OBJECTS / f"{name}.splat").read_bytes() for name in NEW})
    assert statuses == [201] * 3
    job = client.post(f"/api/uploads/{identity}/index")
    assert job.status_code == 202
    states = events_of(client, job.json()["id"])
    assert (states[-1]["status"], states[-1]["indexed"], states[-1]["failed"]) == ("done", 3, 0)
    assert [state["done"] for state in states] == sorted(state["done"] for state in states)
    found = client.get("/api/search", params={"q": "bar stool", "limit": 3}).json()["results"]
    stool = next(asset for asset in found if asset["name"] == "stool")
    assert stool["folder"] == str(library_copy / "uploads" / identity / "mine")
    assert client.get(f"/api/assets/{stool['id']}/thumbnail").status_code == 200


def test_a_broken_file_is_reported_and_deleted_and_the_good_one_stays(client, library_copy):
    identity, _ = upload(client, {"bad.ply": b"ply\nnot really", "good.splat": (OBJECTS / "stool.splat").read_bytes()})
    final = events_of(client, client.post(f"/api/uploads/{identity}/index").json()["id"])[-1]
    assert (final["indexed"], final["failed"]) == (1, 1)
    assert final["failures"][0]["file"] == "bad.ply"
    assert "/" not in final["failures"][0]["reason"].split(" ")[0]
    wait_until(lambda: not (library_copy / "uploads" / identity / "bad.ply").exists())
    assert (library_copy / "uploads" / identity / "good.splat").exists()
    wait_until(lambda: client.get("/api/failures").json() == [])


def test_an_upload_of_nothing_usable_leaves_nothing_behind(client, library_copy):
    identity, _ = upload(client, {"bad.spz": b"\x1f\x8b nonsense"})
    events_of(client, client.post(f"/api/uploads/{identity}/index").json()["id"])
    wait_until(lambda: not (library_copy / "uploads" / identity).exists())
    assert client.get("/api/library").json()["assets"] == len(CHOSEN)


def test_an_upload_ends_once_and_empty_ones_are_errors(client):
    identity, _ = upload(client, {})
    assert client.post(f"/api/uploads/{identity}/index").status_code == 422
    upload_one = client.put(f"/api/uploads/{identity}/files", params={"name": "a.splat"}, content=b"x" * 32)
    assert upload_one.status_code == 201
    assert client.post(f"/api/uploads/{identity}/index").status_code == 202
    assert client.put(f"/api/uploads/{identity}/files", params={"name": "b.splat"}, content=b"x").status_code == 422
    assert client.post("/api/uploads/nonsense/index").status_code == 422
    assert client.get("/api/jobs/nonsense").status_code == 404


@pytest.mark.parametrize(
    "name",
    ["../a.ply", "a/../../b.ply", "/etc/a.ply", ".hidden.ply", "a\\b.ply", "C:\\a.ply", "a\0.ply", "a\n.ply", "", "a//b.ply",
     "a/.", "x" * 250 + ".ply", "/".join("abcdefghi") + ".ply", "a.exe", "a.py", "noextension", "a.ply/"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(client, library_copy, name):
    with pytest.raises(DataError):
        checked_name(name)
    before = sorted(library_copy.parent.rglob("*.ply"))
    identity, statuses = upload(client, {name: b"data"})
    assert statuses == [422]
    assert list((library_copy / "uploads" / identity).iterdir()) == []
    assert sorted(library_copy.parent.rglob("*.ply")) == before


def test_names_of_all_languages_are_taken(client):
    _, statuses = upload(client, {"стул.ply": b"x", "椅子/a b.ply": b"x", "<script>alert(1)<.ply": b"x"})
    assert statuses == [201] * 3


def test_too_many_files_and_too_long_ones_are_refused(indexed, tmp_path):
    path = shutil.copytree(indexed, tmp_path / "library")
    settings = WebSettings(upload_bytes=1_000, upload_files=2, request_bytes=2_000)
    with Library(path) as library, app_client(library, settings) as client:
        identity, statuses = upload(client, {"a.ply": b"x" * 1_001, "b.ply": b"x" * 1_000, "c.ply": b"x", "d.ply": b"x"})
        assert statuses == [413, 201, 201, 413]
        assert sorted(file.name for file in (path / "uploads" / identity).iterdir()) == ["b.ply", "c.ply"]
        assert client.post("/api/search", content=b" " * 2_001).status_code == 413
        assert client.get("/api/library").status_code == 200
    assert not (path / "uploads" / identity).exists()  # it was never finished


def test_a_disk_that_is_nearly_full_takes_no_uploads(indexed, tmp_path):
    path = shutil.copytree(indexed, tmp_path / "library")
    with Library(path) as library, app_client(library, WebSettings(free_bytes=1 << 60)) as client:
        identity, statuses = upload(client, {"a.ply": b"x"})
        assert statuses == [413]
        assert list((path / "uploads" / identity).iterdir()) == []
        reply = client.post("/api/queries", params={"name": "a.png"}, content=b"x")
        assert reply.status_code == 413
        assert "nearly full" in reply.json()["error"]["message"]


def test_waiting_uploads_are_limited_in_number(indexed, tmp_path):
    path = shutil.copytree(indexed, tmp_path / "library")
    with Library(path) as library, app_client(library, WebSettings(waiting_uploads=2)) as client:
        first, second = (client.post("/api/uploads").json()["id"] for _ in range(2))
        refused = client.post("/api/uploads")
        assert refused.status_code == 429
        assert refused.json()["error"]["message"].startswith("No more than 2 uploads may wait")
        assert int(refused.headers["Retry-After"]) > 0
        assert client.delete(f"/api/uploads/{first}").status_code == 204
        assert not (path / "uploads" / first).exists()
        assert client.delete(f"/api/uploads/{first}").status_code == 422
        third = client.post("/api/uploads").json()["id"]
        stool = (OBJECTS / "stool.splat").read_bytes()
        client.put(f"/api/uploads/{second}/files", params={"name": "stool.splat"}, content=stool)
        final = events_of(client, client.post(f"/api/uploads/{second}/index").json()["id"])[-1]
        assert final["status"] == "done"
        assert client.post("/api/uploads").status_code == 201, "what is indexed waits no longer"
        assert client.post("/api/uploads").status_code == 429
        assert (path / "uploads" / third).is_dir()
        assert client.get("/api/library").status_code == 200


def test_uploads_that_were_left_alone_make_room(indexed, tmp_path):
    path = shutil.copytree(indexed, tmp_path / "library")
    settings = WebSettings(waiting_uploads=1, idle_seconds=0.0)
    with Library(path) as library, app_client(library, settings) as client:
        first = client.post("/api/uploads").json()["id"]
        second = client.post("/api/uploads")
        assert second.status_code == 201
        assert not (path / "uploads" / first).exists()
        assert client.put(f"/api/uploads/{first}/files", params={"name": "a.ply"}, content=b"x").status_code == 422


def test_waiting_uploads_are_limited_in_bytes(indexed, tmp_path):
    path = shutil.copytree(indexed, tmp_path / "library")
    with Library(path) as library, app_client(library, WebSettings(waiting_bytes=10_000)) as client:
        one, statuses = upload(client, {"a.ply": b"x" * 6_000, "b.ply": b"x" * 3_000})
        assert statuses == [201, 201]
        other, statuses = upload(client, {"c.ply": b"x" * 2_000, "d.ply": b"x" * 900})
        assert statuses == [429, 201]
        assert [file.name for file in (path / "uploads" / other).iterdir()] == ["d.ply"]
        again = client.put(f"/api/uploads/{one}/files", params={"name": "b.ply"}, content=b"x" * 50)
        assert again.status_code == 201, "what replaces a file counts instead of it"
        reply = client.put(f"/api/uploads/{other}/files", params={"name": "c.ply"}, content=b"x" * 5_000)
        assert "10,000 bytes" in reply.json()["error"]["message"]
        assert client.delete(f"/api/uploads/{one}").status_code == 204
        reply = client.put(f"/api/uploads/{other}/files", params={"name": "c.ply"}, content=b"x" * 5_000)
        assert reply.status_code == 201


def test_waiting_runs_are_limited(library_copy, tmp_path):
    with Library(library_copy) as library:
        slow = SlowModel(library.model)
    shutil.copy(OBJECTS / "stool.splat", tmp_path / "stool.splat")
    with Library(library_copy, slow) as library, app_client(library, WebSettings(waiting_jobs=2)) as client:
        replies = [client.post("/api/jobs", json={"path": str(tmp_path / "stool.splat")}) for _ in range(3)]
        slow.may_go.release(3)
        assert [reply.status_code for reply in replies] == [202, 202, 429]
        assert "2 runs" in replies[-1].json()["error"]["message"]
        events_of(client, replies[1].json()["id"])
        assert client.post("/api/jobs", json={"path": str(tmp_path / "stool.splat")}).status_code == 202


def test_a_folder_is_indexed_where_it_is(client, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in NEW:
        shutil.copy(OBJECTS / f"{name}.splat", folder)
    (folder / "broken.obj").write_text("nothing")
    (folder / "lamps.zip").write_bytes(b"anything")
    job = client.post("/api/jobs", json={"path": str(folder)}).json()
    final = events_of(client, job["id"])[-1]
    assert "Passed over 1 archive, such as " in final["passed_over"]
    assert (final["status"], final["indexed"], final["failed"], final["total"]) == ("done", 3, 1, 4)
    assert client.get("/api/jobs").json()[0] == client.get(f"/api/jobs/{job['id']}").json()
    again = client.post("/api/jobs", json={"path": str(folder)}).json()
    assert events_of(client, again["id"])[-1]["skipped"] == 3


def test_files_that_were_moved_are_found_in_their_new_folder(client, tmp_path):
    """Moving changes no embedding."""
    (tmp_path / "old").mkdir()
    shutil.copy(OBJECTS / "stool.splat", tmp_path / "old")
    events_of(client, client.post("/api/jobs", json={"path": str(tmp_path / "old")}).json()["id"])
    assert str(tmp_path / "old") in client.get("/api/library").json()["folders"]
    (tmp_path / "old").rename(tmp_path / "new")
    final = events_of(client, client.post("/api/jobs", json={"path": str(tmp_path / "new")}).json()["id"])[-1]
    assert final["skipped"] == 1
    folders = client.get("/api/library").json()["folders"]
    assert str(tmp_path / "old") not in folders
    assert folders[str(tmp_path / "new")] == 1


def test_what_is_said_to_point_up_is_kept_with_uploads_and_folders(client, tmp_path):
    name, folder = "stool.splat", tmp_path / "scans"
    folder.mkdir()
    shutil.copy(OBJECTS / name, folder)

    def run(reply) -> tuple[int, str | None]:
        """How many assets were indexed, and what points up in the only new one."""
        indexed = events_of(client, reply.json()["id"])[-1]["indexed"]
        (newest,) = client.post("/api/search", json={"limit": 1}).json()["results"]
        return indexed, newest["up"]

    identity, _ = upload(client, {name: (OBJECTS / name).read_bytes()})
    for bad in ("sideways", "Z", "", 1, ["z"]):
        for address, request in ((f"/api/uploads/{identity}/index", {}), ("/api/jobs", {"path": str(folder)})):
            reply = client.post(address, json=request | {"up": bad})
            assert reply.status_code == 422
            message = reply.json()["error"]["message"]
            assert message.startswith("up: ")
            assert all(repr(choice) in message for choice in get_args(Up))
    assert run(client.post(f"/api/uploads/{identity}/index", json={"up": "z"})) == (1, "z")
    for up, expected in ((None, (0, "z")), ("-x", (1, "-x")), ("auto", (1, None))):
        assert run(client.post("/api/jobs", json={"path": str(folder), "up": up})) == expected


@pytest.mark.parametrize("path", ["relative/folder", "/no/such/folder", "", "/a\0b", "x" * 5_000, "/" + "x" * 300])
def test_a_folder_that_is_none_is_an_error(client, path):
    reply = client.post("/api/jobs", json={"path": path})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"]


class SlowModel:
    """The real model, which waits before each batch until it may go on."""

    def __init__(self, model) -> None:
        self._model, self.may_go = model, threading.Semaphore(0)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode_gaussians(self, objects, batch_size=16):
        self.may_go.acquire()
        return self._model.encode_gaussians(objects, batch_size)


def test_a_cancelled_run_keeps_what_it_stored_and_goes_on_when_asked_again(library_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(Indexing, "threads", 1)
    folder = tmp_path / "many"
    folder.mkdir()
    for path in sorted(OBJECTS.glob("*.splat"))[: 3 * PORTION_FILES]:
        shutil.copy(path, folder)
    with Library(library_copy) as library:
        model = library.model
    slow = SlowModel(model)
    with Library(library_copy, slow) as library, app_client(library) as client:
        before = len(library)
        job = client.post("/api/jobs", json={"path": str(folder)}).json()["id"]
        waiting = client.post("/api/jobs", json={"path": str(folder)}).json()["id"]
        slow.may_go.release()
        wait_until(lambda: client.get(f"/api/jobs/{job}").json()["indexed"] > 0)
        assert client.delete(f"/api/jobs/{job}").json()["status"] == "cancelling"
        assert client.delete(f"/api/jobs/{waiting}").status_code == 202
        slow.may_go.release()
        final = events_of(client, job)[-1]
        assert final["status"] == "cancelled"
        assert 0 < final["indexed"] <= 2 * PORTION_FILES < final["total"]
        assert len(library) == before + final["indexed"]
        assert events_of(client, waiting)[-1]["status"] == "cancelled"
        slow.may_go.release(10)
        job = client.post("/api/jobs", json={"path": str(folder)}).json()["id"]
        final = events_of(client, job)[-1]
        assert (final["status"], final["indexed"] + final["skipped"]) == ("done", final["total"])


class StuckModel(SlowModel):
    """The real model, of which only the first batch has to wait."""

    def __init__(self, model) -> None:
        super().__init__(model)
        self.is_stuck = threading.Event()

    def encode_gaussians(self, objects, batch_size=16):
        if not self.is_stuck.is_set():
            self.is_stuck.set()
            self.may_go.acquire()
        return self._model.encode_gaussians(objects, batch_size)


def test_a_slow_file_does_not_hold_up_what_is_dropped_after_it(library_copy):
    with Library(library_copy) as library:
        stuck = StuckModel(library.model)
    with Library(library_copy, stuck) as library, app_client(library) as client:
        first, _ = upload(client, {"bench.splat": (OBJECTS / "bench.splat").read_bytes()})
        slow = client.post(f"/api/uploads/{first}/index").json()["id"]
        assert stuck.is_stuck.wait(60)
        files = {"stool.splat": (OBJECTS / "stool.splat").read_bytes(), "bad.ply": b"ply\nnot really"}
        second, _ = upload(client, files)
        final = events_of(client, client.post(f"/api/uploads/{second}/index").json()["id"])[-1]
        assert (final["status"], final["indexed"], final["failed"]) == ("done", 1, 1)
        assert final["failures"][0]["file"] == "bad.ply"
        state = client.get(f"/api/jobs/{slow}").json()
        assert (state["status"], state["indexed"]) == ("running", 0)
        stuck.may_go.release()
        final = events_of(client, slow)[-1]
        assert (final["status"], final["indexed"], final["failed"]) == ("done", 1, 0)
        assert len(library) == len(CHOSEN) + 2


def test_the_same_file_dropped_twice_at_once_is_one_asset(library_copy):
    with Library(library_copy) as library, app_client(library) as client:
        bench = (OBJECTS / "bench.splat").read_bytes()
        uploads = [upload(client, {"bench.splat": bench})[0] for _ in range(4)]
        jobs = [client.post(f"/api/uploads/{identity}/index").json()["id"] for identity in uploads]
        finals = [events_of(client, job)[-1] for job in jobs]
        assert [(final["status"], final["indexed"] + final["skipped"]) for final in finals] == [("done", 1)] * 4
        assert len(library) == len(CHOSEN) + 1
        assert library.verify(contents=True).problems == []
        assert len([path for path in library.files() if path.name == "bench.splat"]) == 4


def test_one_stream_tells_of_many_jobs(client):
    jobs = []
    for name in NEW:
        identity, _ = upload(client, {f"{name}.splat": (OBJECTS / f"{name}.splat").read_bytes()})
        jobs.append(client.post(f"/api/uploads/{identity}/index").json()["id"])
    watched = [*jobs, "nonsense", jobs[0]]
    with client.stream("GET", "/api/jobs/events", params={"id": watched}) as reply:
        states = [json.loads(line.removeprefix("data: ")) for line in reply.iter_lines() if line.startswith("data: ")]
    last = {state["id"]: state for state in states}
    assert {job: last[job]["status"] for job in jobs} == dict.fromkeys(jobs, "done")
    assert [state["status"] for state in states if state["id"] == jobs[0]].count("done") == 1
    assert last["nonsense"]["status"] == "failed"
    assert "does not know" in last["nonsense"]["message"]
    assert client.get("/api/jobs/events").status_code == 422
    assert client.get("/api/jobs/events", params={"id": ["x"] * 201}).status_code == 422


def test_a_run_that_cannot_write_says_why(client, tmp_path, library_copy):
    import sqlite3

    shutil.copy(OBJECTS / "stool.splat", tmp_path / "stool.splat")
    with sqlite3.connect(library_copy / "library.sqlite") as other:
        other.execute("DROP TABLE embeddings")
    other.close()
    job = client.post("/api/jobs", json={"path": str(tmp_path / "stool.splat")}).json()["id"]
    final = events_of(client, job)[-1]
    assert final["status"] == "failed"
    assert "no such table" in final["message"]
    assert client.get("/static/style.css").status_code == 200


def test_events_are_one_json_object_each(client):
    identity, _ = upload(client, {"good.splat": (OBJECTS / "stool.splat").read_bytes()})
    job = client.post(f"/api/uploads/{identity}/index").json()["id"]
    text = client.get(f"/api/jobs/{job}/events").text
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(json.loads(block.removeprefix("data: "))["id"] == job for block in blocks)


def test_the_last_event_is_sent_whenever_the_job_ends():
    """Here between the two assignments that end it: the status is set, the version not yet."""

    class Idle(Job):
        def _work(self) -> None:
            pass

    job = Idle("a job")

    async def receive():
        await asyncio.sleep(3_600)

    async def states() -> list[str]:
        stream = _states([job], Request({"type": "http"}, receive))
        first = await anext(stream)
        job._status = "done"
        return [first, *[state async for state in stream]]

    assert [json.loads(text.removeprefix("data: "))["status"] for text in asyncio.run(states())] == ["waiting", "done"]


def test_an_upload_is_not_finished_while_a_file_arrives(tmp_path):
    async def parts(uploads, identity):
        yield b"x" * 16
        with pytest.raises(DataError, match="1 file of this upload still arriving"):
            uploads.finish(identity)
        yield b"x" * 16

    async def broken():
        yield b"x"
        raise OSError("hung up")

    with Library(tmp_path / "library") as library:
        uploads = Uploads(library, WebSettings())
        identity = uploads.begin()
        with pytest.raises(OSError, match="hung up"):
            asyncio.run(uploads.receive(identity, "b.splat", broken()))
        assert asyncio.run(uploads.receive(identity, "a.splat", parts(uploads, identity))) == 32
        assert [path.name for path in uploads.assets(uploads.finish(identity))] == ["a.splat"]


def test_a_name_below_that_of_a_file_is_refused(client):
    identity, statuses = upload(client, {"a.splat": b"x" * 32, "a.splat/b.splat": b"x" * 32, "c.splat": b"x" * 32})
    assert statuses == [201, 422, 201]
    assert client.delete(f"/api/uploads/{identity}").status_code == 204


def test_an_upload_that_cannot_be_kept_takes_no_place(client, library_copy):
    (library_copy / "uploads").write_text("in the way")
    for _ in range(WebSettings().waiting_uploads + 1):
        reply = client.post("/api/uploads")
        assert (reply.status_code, "no upload can be kept" in reply.json()["error"]["message"]) == (503, True)
