"""`/api/uploads` and `/api/jobs`: bring files into the library, watch, cancel."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from splatsense.errors import DataError
from splatsense.geometry.upright import Up
from splatsense.tables import counted, printable
from splatsense.web.jobs import Indexing, Job
from splatsense.web.services import Services, Shared
from splatsense.web.uploads import busy

router = APIRouter(prefix="/api", tags=["indexing"])

WATCH_SECONDS, HEARTBEAT_SECONDS = 0.1, 10.0
MOST_WATCHED = 200  # jobs in one stream of events


class IndexRequest(BaseModel):
    """What is said about files that are to be indexed."""

    up: Up | None = Field(default=None, description="the axis of these files that points up; auto forgets what was said before")


class FolderRequest(IndexRequest):
    """A folder of this machine to index."""

    path: str = Field(min_length=1, max_length=4_096, description="absolute; ~ is the home folder")


NOTHING_SAID = IndexRequest()


@router.post("/uploads", status_code=201)
def begin_upload(services: Shared) -> dict[str, str]:
    """Begin an upload of files that belong together; 429 when too many wait to be indexed."""
    return {"id": services.uploads.begin()}


@router.put("/uploads/{identity}/files", status_code=201)
async def upload_file(
    identity: str, request: Request, services: Shared, name: Annotated[str, Query(max_length=2_000)]
) -> dict[str, int]:
    """Add a file to an upload, sent as the body; `name` may have folders in it."""
    return {"bytes": await services.uploads.receive(identity, name, request.stream())}


@router.post("/uploads/{identity}/index", status_code=202)
def index_upload(identity: str, services: Shared, request: IndexRequest = NOTHING_SAID) -> dict[str, Any]:
    """Index what was uploaded; files that cannot be indexed are deleted again."""
    folder = services.uploads.finish(identity)
    assets = services.uploads.assets(folder)

    def after(failed: list[Path]) -> None:
        services.uploads.discard(folder, failed)
        services.catalogue.expire()

    def settled() -> None:
        services.uploads.settle(identity)

    title = f"Upload of {counted(len(assets), 'file')}"
    return services.jobs.start(Indexing(services.library, title, assets, after, settled, request.up)).state()


@router.delete("/uploads/{identity}", status_code=204)
def abandon_upload(identity: str, services: Shared) -> None:
    """Delete an upload that is not indexed yet, with its files."""
    services.uploads.abandon(identity)


@router.post("/jobs", status_code=202)
def index_folder(request: FolderRequest, services: Shared) -> dict[str, Any]:
    """Index a folder of the machine that the server runs on; its files stay where they are."""
    if not services.settings.is_local:
        raise HTTPException(403, "Folders can be indexed only from the machine that the server runs on.")
    if "\0" in request.path:
        raise DataError("A folder's path has no null bytes.")
    path = Path(os.path.expanduser(request.path.strip()))
    if not path.is_absolute():
        raise DataError(f"{printable(path)}: give the whole path of the folder, such as /home/me/scans.")
    if not os.path.exists(path):  # Path.exists raises where a name is too long
        raise DataError(f"{printable(path)}: there is no such folder.")
    if services.jobs.waiting() >= services.settings.waiting_jobs:
        raise busy(f"No more than {counted(services.settings.waiting_jobs, 'run')} may wait")

    def after(failed: list[Path]) -> None:
        services.catalogue.expire()

    title = f"Folder {printable(path.name or path)}"
    return services.jobs.start(Indexing(services.library, title, [path], after, up=request.up)).state()


@router.get("/jobs")
def all_jobs(services: Shared) -> list[dict[str, Any]]:
    """The last jobs, newest first."""
    return [job.state() for job in services.jobs.all()]


@router.get("/jobs/events")
async def events_of_jobs(
    request: Request, services: Shared, id: Annotated[list[str], Query(min_length=1, max_length=MOST_WATCHED)]
) -> StreamingResponse:
    """The states of several jobs whenever they change, as server-sent events; ends with the last of them.

    Browsers open no more than six connections to a server: a page that watches many jobs needs but one. A job that is not
    known any more has failed.
    """
    found = {identity: services.jobs.find(identity) for identity in id}
    jobs = [job for job in found.values() if job is not None]
    return _stream(_states(jobs, request, [identity for identity, job in found.items() if job is None]))


@router.get("/jobs/{identity}")
def job_state(identity: str, services: Shared) -> dict[str, Any]:
    """How far a job is."""
    return _job(identity, services).state()


@router.delete("/jobs/{identity}", status_code=202)
def cancel(identity: str, services: Shared) -> dict[str, Any]:
    """Cancel a job: it stops after the files that it is working on; what is stored is kept."""
    job = _job(identity, services)
    job.cancel()
    return job.state()


@router.get("/jobs/{identity}/events")
async def events(identity: str, request: Request, services: Shared) -> StreamingResponse:
    """The job's state whenever it changes, as server-sent events; ends with the job."""
    return _stream(_states([_job(identity, services)], request))


def _stream(states: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(states, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _states(jobs: list[Job], request: Request, forgotten: Sequence[str] = ()) -> AsyncIterator[str]:
    for identity in forgotten:
        yield _event({"id": identity, "status": "failed", "message": "The server does not know this run any more."})
    sent, waited = {job.id: -1 for job in jobs}, 0.0
    while sent and not await request.is_disconnected():
        for job in [job for job in jobs if job.id in sent]:
            version, is_over = job.version, job.is_over
            if version != sent[job.id] or is_over:
                sent[job.id], waited = version, 0.0
                yield _event(job.state())
            if is_over:
                del sent[job.id]
        if not sent:
            return
        if waited >= HEARTBEAT_SECONDS:
            waited = 0.0
            yield ": waiting\n\n"
        await asyncio.sleep(WATCH_SECONDS)
        waited += WATCH_SECONDS


def _event(state: dict[str, Any]) -> str:
    return f"data: {json.dumps(state)}\n\n"


def _job(identity: str, services: Services) -> Job:
    job = services.jobs.find(identity)
    if job is None:
        raise HTTPException(404, "There is no such job.")
    return job
