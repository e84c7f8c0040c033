"""The page's own HTTP interface, as its script uses it."""

from __future__ import annotations

import html
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

TIMEOUT_S = 240
_CHOICES: dict[str, Any] = {
    "text": "", "seed": 0, "candidates": 1, "steps": 2, "scale": 1.5, "keep": False, "negative": "", "like": None,
    "duration": None, "next": False,
}  # fmt: skip
"""The values of the page's controls, in their order."""


@dataclass
class Client:
    """A session: see `Session` of the studio."""

    url: str
    key: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        config = requests.get(f"{self.url}/config", timeout=TIMEOUT_S).json()
        self._functions = {one["api_name"]: one["id"] for one in config["dependencies"]}

    def upload(self, name: str, content: bytes) -> requests.Response:
        return requests.post(f"{self.url}/gradio_api/upload", files={"files": (name, content)}, timeout=TIMEOUT_S)

    def uploaded(self, content: bytes, name: str = "clip.mp4") -> dict[str, Any]:
        """What the page holds of an uploaded file."""
        answer = self.upload(name, content)
        assert answer.status_code == 200, answer.text
        return as_file(answer.json()[0])

    def join(self, function: str, *data: Any) -> requests.Response:
        body = {"data": list(data), "fn_index": self._functions[function], "session_hash": self.key}
        text = json.dumps(body)  # with NaN and infinity, which requests would refuse
        headers = {"Content-Type": "application/json"}
        return requests.post(f"{self.url}/gradio_api/queue/join", data=text, headers=headers, timeout=TIMEOUT_S)

    def tell(self, function: str, event: dict[str, Any]) -> requests.Response:
        """What a click or the like on the page tells the server, and what that answers."""
        body = {"data": [], "event_data": event, "fn_index": self._functions[function], "session_hash": self.key}
        return requests.post(f"{self.url}/gradio_api/run/predict", json=body, timeout=TIMEOUT_S)

    def events(self) -> Iterator[dict[str, Any]]:
        """What the server tells this session."""
        with requests.get(
            f"{self.url}/gradio_api/queue/data", params={"session_hash": self.key}, stream=True, timeout=TIMEOUT_S
        ) as answer:
            for line in answer.iter_lines():
                if line:
                    yield json.loads(line.removeprefix(b"data: "))

    def ask(self, function: str, *data: Any) -> str:
        """Do it to the end: what the status line says then, or "refused: ..." where it was not even begun."""
        joined = self.join(function, *data)
        if joined.status_code != 200:
            return f"refused: {joined.status_code} {joined.text}"
        for event in self.events():
            if event["msg"] == "process_completed":
                if not event["success"]:
                    return f"refused: {event['output']}"
                return next(filter(None, map(says, event["output"]["data"])), "")
        raise AssertionError("the server said no more")

    def make(self, video: Any, **changed: Any) -> str:
        return self.ask("make", video, *(_CHOICES | changed).values())

    def remake(self, take: Any, begin: Any, end: Any, **changed: Any) -> str:
        return self.ask("remake", take, begin, end, *(_CHOICES | {"seed": 1} | changed).values())


def as_file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def says(value: Any) -> str:
    found = re.search(r'class="says">(.*?)</span>', value) if isinstance(value, str) else None
    return html.unescape(found[1]) if found else ""
