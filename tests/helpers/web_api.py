"""The HTTP interface of `specmaskfoley serve`, as another program uses it: nothing but HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

TIMEOUT_S = 240
Reply = requests.Response


@dataclass
class Api:
    """`session` has the headers and the password of all requests."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **more: Any) -> Reply:
        return self.session.get(f"{self.url}{path}", timeout=TIMEOUT_S, **more)

    def delete(self, path: str) -> Reply:
        return self.session.delete(f"{self.url}{path}", timeout=TIMEOUT_S)

    def send(self, fields: list[tuple[str, Any]], **more: Any) -> Reply:
        """A form of files (bytes, or name and bytes) and texts, as it stands."""
        files = [(name, (None, value) if isinstance(value, str) else value) for name, value in fields]
        return self.session.post(f"{self.url}/jobs", files=files, timeout=TIMEOUT_S, **more)

    def post(self, video: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """A job that is accepted; a list is a field that is repeated."""
        given: list[tuple[str, Any]] = [] if video is None else [("video", ("clip.mp4", video))]
        for name, value in fields.items():
            for one in value if isinstance(value, list) else [value]:
                given.append((name, (name, one) if isinstance(one, bytes) else str(one)))
        answer = self.send(given)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        assert answer.headers["location"] == job["url"]
        return job

    def job(self, job: dict[str, Any]) -> dict[str, Any]:
        answer = self.get(job["url"])
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def follow(self, job: dict[str, Any], until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """All that is told of a job until something is; a job that ends otherwise is an error."""
        told, deadline = [self.job(job)], time.monotonic() + TIMEOUT_S
        while not until(told[-1]):
            assert told[-1]["state"] in ("waiting", "running"), told[-1]
            assert time.monotonic() < deadline, told[-1]
            time.sleep(0.02)
            told.append(self.job(job))
        return told

    def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        return self.follow(job, lambda told: told["state"] not in ("waiting", "running"))[-1]

    def made(self, video: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """A job that ended well."""
        job = self.ended(self.post(video, **fields))
        assert job["state"] == "done", job
        return job

    def fetch(self, path: str) -> bytes:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.content
