"""The HTTP interface: jobs are posted, followed and removed, and what they made is fetched.

The same studio as behind the page, with a session for each job, whose key is the job's.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, PackageLoader
from pydantic import BaseModel, Field
from starlette.middleware import Middleware

from specmaskfoley.foley import Stopped
from specmaskfoley.web.forms import FILES, Order
from specmaskfoley.web.gate import Gate, Lock
from specmaskfoley.web.jobs import Full, sentence
from specmaskfoley.web.studio import (
    LONGEST_TEXT,
    MOST_CANDIDATES,
    MOST_SCALE,
    MOST_STEPS,
    Result,
    SavedTake,
    Session,
    Studio,
)

_MOST_FIELDS = 64
_LONGEST_FIELD = 1 << 14
_UPLOAD_S = 600.0
"""An upload that takes longer is given up, so that it does not keep others out."""
_GONE = "There is no such job, or it is no longer kept."


class TakeView(BaseModel):
    """A take, and where its files are."""

    seed: int
    duration_s: float
    level: str = Field(description="How loud it is.")
    nearly_silent: bool
    verdict: str | None = Field(description="What the judges say of it, where there are several.")
    scores: dict[str, float] | None = Field(description="The same in numbers; `overall` orders the takes.")
    sound: str
    video: str | None = Field(description="With the new sound; none where there was no video.")
    record: str = Field(description="JSON, from which `specmaskfoley generate --record` makes the same sound again.")
    picture: str = Field(description="The spectrogram, from -80 to 0 dB.")


class JobView(BaseModel):
    """How far a job is, and what it made."""

    id: str
    url: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    before: int = Field(0, description="Jobs that come first.")
    share: float = Field(0.0, description="Of its work that is done, 0 to 1.")
    message: str = Field("", description="What is being done.")
    left_s: float | None = Field(None, description="Estimated seconds to its end.")
    error: str | None = Field(None, description="Why it failed.")
    remark: str = Field("", description="What is to be said of the text.")
    doubt: str = Field("", description="What is to be said of the scores.")
    takes: list[TakeView] = Field([], description="The best first.")


class ModelView(BaseModel):
    """The model, and what is accepted."""

    name: str
    sounds: list[str] = Field(description="What it was trained on.")
    any_text: bool = Field(description="Whether it understands other texts, too.")
    like: bool = Field(description="Whether it takes a sound to be like.")
    sample_rate: int
    limits: dict[str, int | float]
    defaults: dict[str, Any] = Field(description="The sampling where a job says nothing.")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def build(studio: Studio, guards: Sequence[Middleware] = (), *, password: str | None = None) -> FastAPI:
    """The interface of a studio.

    Args:
        guards: middleware before all else.
        password: without it nothing is told, taken or done.
    """
    gate = Middleware(
        Gate, max_upload=round(studio.limits.megabytes * 1e6), uploads="/jobs",
        refusal=lambda text, status: JSONResponse({"detail": text}, status),
    )  # fmt: skip
    lock = [] if password is None else [Middleware(Lock, password=password)]
    knowledge = studio.foley.knowledge
    app = FastAPI(
        title="SpecMaskFoley", summary="Sound for silent video.", description=f"Model: {knowledge.sentence}.",
        docs_url=None, redoc_url=None, middleware=[*guards, gate, *lock],
        exception_handlers={Exception: _failed, OSError: _failed},
        responses={"4XX": {"model": Problem, "description": "Refused, in a sentence."}},
    )  # fmt: skip
    arriving = 0

    @asynccontextmanager
    async def place() -> AsyncIterator[None]:
        """A place in line, from the first byte of an upload on: so that uploads, too, are only so many."""
        nonlocal arriving
        if len(studio.jobs) + arriving >= studio.jobs.max_jobs:
            raise HTTPException(429, f"{studio.jobs.max_jobs} jobs are in line already; try again later.")
        arriving += 1
        try:
            async with asyncio.timeout(_UPLOAD_S):
                yield
        except TimeoutError:
            raise HTTPException(408, f"An upload may take {_UPLOAD_S:g} s.") from None
        finally:
            arriving -= 1

    def found(job_id: str) -> Session:
        session = studio.find(job_id)
        if session is None or session.job is None:
            raise HTTPException(404, _GONE)
        return session

    form = {"content": {"multipart/form-data": {"schema": Order.model_json_schema()}}, "required": True}

    @app.post("/jobs", status_code=202, openapi_extra={"requestBody": form})
    async def post_job(request: Request, response: Response) -> JobView:
        """Make a sound. The answer says where to ask how far it is."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(415, "Send a form: multipart/form-data, as curl does with -F.")
        async with (
            place(),
            request.form(max_files=len(FILES), max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD) as form,
        ):
            key = secrets.token_urlsafe(16)
            try:
                order = Order.of(form)
                studio.check_like(order.like)
                session = studio.session(key)
                stored = await asyncio.to_thread(order.store, session.folder)
                video = str(stored["video"]) if "video" in stored else None
                studio.make(session, video, order.choices(studio.defaults, stored))
            except BaseException as error:
                studio.leave(key)
                if isinstance(error, ValueError):
                    raise HTTPException(429 if isinstance(error, Full) else 422, str(error)) from None
                raise
        view = _view(studio, key, session)
        response.headers["location"] = view.url
        return view

    @app.get("/jobs/{job_id}")
    def get_job(job_id: str) -> JobView:
        """How far a job is, or what it made. Jobs and files are removed when nobody asked for them for long."""
        return _view(studio, job_id, found(job_id))

    @app.delete("/jobs/{job_id}", status_code=204)
    def delete_job(job_id: str) -> None:
        """Cancel a job, and remove all its files."""
        found(job_id)
        studio.leave(job_id)

    @app.get("/jobs/{job_id}/takes/{file}", response_class=FileResponse)
    def get_file(job_id: str, file: str) -> FileResponse:
        """A file of a take, such as `1.flac`, `1.mp4`, `1.json` (how to make it again) or `1.png`."""
        session = found(job_id)
        if not session.results:
            raise HTTPException(409, "This job has made nothing yet; its state is told at its own address.")
        made = {
            f"{number}{path.suffix}": path
            for number, take in enumerate(session.results[0].takes, start=1)
            for path in take.files
        }
        if file not in made:
            raise HTTPException(404, f"There is no such file; there are: {', '.join(made)}.")
        return FileResponse(made[file])

    @app.get("/model")
    def get_model() -> ModelView:
        """What the model knows, what is accepted, and the sampling where a job says nothing of it."""
        limits = {
            "minutes": studio.limits.minutes, "megabytes": studio.limits.megabytes, "candidates": MOST_CANDIDATES,
            "steps": MOST_STEPS, "scale": MOST_SCALE, "letters": LONGEST_TEXT, "jobs": studio.jobs.max_jobs,
            "kept_s": studio.limits.idle_s,
        }  # fmt: skip
        return ModelView(
            name=knowledge.name, sounds=list(knowledge.words), any_text=knowledge.any_text,
            like=studio.foley.features.hears, sample_rate=studio.foley.params.audio.sample_rate, limits=limits,
            defaults=dict(studio.defaults),
        )  # fmt: skip

    @app.get("/docs", include_in_schema=False)
    def get_docs() -> HTMLResponse:
        return HTMLResponse(_reference(app.openapi()))

    @app.get("/", include_in_schema=False)
    def get_root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


def _view(studio: Studio, key: str, session: Session) -> JobView:
    job, url = session.job, f"/jobs/{key}"
    assert job is not None
    if not job.future.done():
        if job.started_s is None:
            return JobView(id=key, url=url, state="waiting", before=studio.jobs.before(job))
        return JobView(
            id=key, url=url, state="running", share=job.share, message=job.message or "starting", left_s=job.left_s
        )
    try:
        result: Result = job.result()
    except Stopped:
        return JobView(id=key, url=url, state="cancelled")
    except Exception as error:
        reason = sentence(error).replace(f"{session.folder}/", "")
        return JobView(id=key, url=url, state="failed", error=reason)
    takes = [_take(url, number, made) for number, made in enumerate(result.takes, start=1)]
    return JobView(id=key, url=url, state="done", share=1.0, remark=result.remark, doubt=result.doubt, takes=takes)


def _take(url: str, number: int, made: SavedTake) -> TakeView:
    def at(path: Path) -> str:
        return f"{url}/takes/{number}{path.suffix}"

    take, saved = made.take, made.saved
    verdict = take.verdict and "; ".join(filter(None, [take.verdict.scores, take.verdict.place]))
    return TakeView(
        seed=take.seed, duration_s=take.duration_s, level=take.level.sentence, nearly_silent=take.level.nearly_silent,
        verdict=verdict, scores=take.scores, sound=at(saved.audio), video=saved.video and at(saved.video),
        record=at(saved.record), picture=at(made.picture),
    )  # fmt: skip


def _failed(_: Request, error: Exception) -> JSONResponse:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    told = error if isinstance(error, OSError) else RuntimeError()  # others may say more than a stranger should read
    return JSONResponse({"detail": sentence(told)}, 507 if full else 500)


def _reference(schema: dict[str, Any]) -> str:
    """The interface as a page that loads nothing."""
    environment = Environment(
        loader=PackageLoader("specmaskfoley", "web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("reference.html.j2").render(schema=schema)
