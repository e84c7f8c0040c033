"""Source `youtube`: the ten seconds of every wanted clip, cut out of its video on YouTube.

yt-dlp finds the streams, ffmpeg reads the section and encodes it anew, so that it begins exactly where it should; the
same stream gives the same file. `judge` tells the reasons apart for which a clip cannot be fetched.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from specmaskfoley.clips.fetched import FetchedClips
from specmaskfoley.clips.vggsound import CLIP_S, VggSoundClip, wanted
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.probe import probe
from specmaskfoley.settings import Fetch, Params
from specmaskfoley.storage.files import sha256_text
from specmaskfoley.storage.tables import LISTED
from specmaskfoley.weights.download import NO_CONNECTION

THROTTLED, PASSING = "throttled", "passing"
"""Verdicts besides the states of storage.tables: all workers wait, or this clip is tried again."""

_VERDICTS = [
    (r"HTTP Error 5\d\d|HTTP Error 403|Server returned 5|timed out|premieres? in|will begin", PASSING),
    (
        r"not a bot|HTTP Error 429|returned 429|Too Many Requests|rate-limited|captcha challenge|"
        "this content isn't available, try again later",
        THROTTLED,
    ),
    (
        r"confirm your age|age-restricted|inappropriate for some users|may be inappropriate",
        "age_restricted",
    ),
    (
        r"in your country|from your location|geo.?restrict|blocked it in|not available in your",
        "geo_blocked",
    ),
    (
        r"private video|video is private|members.only|join this channel|requires payment|"
        "only available (?:for|to)|available to music premium|purchase",
        "private",
    ),
    (
        r"unavailable|no longer available|has been (?:removed|terminated)|been closed|copyright|removed by|"
        "does not exist|not available|HTTP Error 404|HTTP Error 410|Incomplete YouTube ID|video is not found",
        "removed",
    ),
    (r"Invalid data found|moov atom not found|could not find codec|End of file", "corrupt"),
]
_BROKEN_OFF = re.compile(
    r"ends prematurely|reset by peer|Input/output error|timed out|refused|Broken pipe|partial file|"
    r"HTTP error|Server returned|returned 4\d\d|returned 5",
    re.IGNORECASE,
)
_BANNED_AFTER = 10
_FIRST_RETRIES = 2  # while the site has not answered at all
_LONGEST_WAIT_S = 1800.0
_PAUSES = 10
"""The first pause of all workers, in intervals."""

# x264's look-ahead gives other files now and then (see storage.media), so it is off. Frames keep their times: a
# constant rate would move them by up to half a frame against the sound.
_ENCODING = [
    *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-qp", "20", "-pix_fmt", "yuv420p", "-threads", "1"),
    *("-fps_mode", "passthrough", "-enc_time_base", "demux"),
    *("-c:a", "aac", "-b:a", "128k", "-map_metadata", "-1", "-map_chapters", "-1", "-movflags", "+faststart"),
    *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-f", "mp4"),
]


def list_clips(params: Params) -> list[dict[str, Any]]:
    """Fetch every wanted clip that is not here yet; the rows of the others say why not. A killed run is continued.

    Raises:
        ValueError: a setting is wrong, a package is missing, or YouTube refuses to go on.
    """
    fetch = params.fetch
    items = wanted(params)
    with FetchedClips(Path(fetch.folder), source="youtube", access=_access(fetch), again=fetch.again) as store:
        open_clips = store.to_fetch([item.clip for item in items if item.state == LISTED])
        if open_clips:
            with store.unfinished() as scratch:
                _Fetching(fetch, store, scratch).run(open_clips)
        rows = store.rows(items)
    return rows


def judge(message: str) -> tuple[str, str]:
    """What a message of yt-dlp or ffmpeg means: a state, THROTTLED or PASSING; and the message as `_lasting` has it."""
    reason = _lasting(message)
    for pattern, verdict in _VERDICTS:
        if re.search(pattern, message.replace("\u2019", "'"), re.IGNORECASE):
            return verdict, reason
    return PASSING, reason


class _RefusedError(Exception):
    """An attempt that failed, with the verdict on it; `connected`: whether the site was reached."""

    def __init__(self, verdict: str, reason: str, wait_s: float = 0.0, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.verdict, self.reason, self.wait_s, self.connected = verdict, reason, wait_s, connected


@dataclass
class _Gate:
    """Where workers wait while the site refuses all requests: twice as long each time, until one succeeds."""

    pause_s: float
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _until: float = 0.0
    _pauses: int = 0

    def wait(self, stop: threading.Event) -> None:
        while (left := self._until - time.monotonic()) > 0 and not stop.is_set():
            stop.wait(min(left, 1.0))

    def close(self, asked_s: float) -> None:
        with self._mutex:
            if time.monotonic() < self._until:
                return  # another worker was refused just before
            pause = min(self.pause_s * 2**self._pauses, _LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
            self._until = time.monotonic() + max(pause, min(asked_s, _LONGEST_WAIT_S))
            self._pauses += 1

    def opened(self) -> None:
        self._pauses = 0


class _Fetching:
    """One run over the open clips, with `fetch.workers` threads."""

    def __init__(self, settings: Fetch, store: FetchedClips, scratch: Path) -> None:
        try:
            import imageio_ffmpeg
            import yt_dlp
        except ImportError as error:
            raise ValueError(f"data.source=youtube needs {error.name}: pip install 'specmaskfoley[fetch]'") from None
        if settings.proxy and not settings.proxy.startswith(("http://", "https://")):
            raise ValueError(f"fetch.proxy={settings.proxy!r}: ffmpeg speaks to http:// proxies only")
        self._yt_dlp, self._ffmpeg = yt_dlp, imageio_ffmpeg.get_ffmpeg_exe()
        self._settings, self._store, self._scratch = settings, store, scratch
        self._gate = _Gate(max(0.05, _PAUSES * settings.interval_s))
        self._local = threading.local()
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._connected = False
        self._failed: list[tuple[str, str]] = []  # clips in a row, and why

    def run(self, clips: Sequence[VggSoundClip]) -> None:
        counts: Counter[str] = Counter()
        todo = iter(clips)
        with (
            ThreadPoolExecutor(self._settings.workers) as pool,
            tqdm(total=len(clips), desc="fetching", disable=None) as bar,
        ):
            running: set[Future[str]] = set()
            try:
                while True:
                    for clip in todo:
                        running.add(pool.submit(self._fetch, clip))
                        if len(running) >= 2 * self._settings.workers:
                            break
                    if not running:
                        break
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        counts[future.result()] += 1
                        bar.update()
                    bar.set_postfix(counts)
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._conclude_failed()
        print("clips: fetched " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())), flush=True)

    def _fetch(self, clip: VggSoundClip) -> str:
        """Try until there is a verdict; returns the state."""
        settings = self._settings
        failures = throttles = 0
        self._sleep(settings.interval_s)
        while True:
            self._gate.wait(self._stop)
            if self._stop.is_set():
                return "stopped"
            target = self._scratch / f"{clip.clip_id}.mp4"
            try:
                self._cut(clip, target)
            except _RefusedError as error:
                target.unlink(missing_ok=True)
                if self._stop.is_set():
                    return "stopped"
                self._connected = self._connected or error.connected
                if error.verdict == THROTTLED:
                    throttles += 1
                    self._gate.close(error.wait_s)
                    if throttles > settings.retries:
                        return self._fail(clip, error.reason)
                    continue
                if error.verdict in (PASSING, "corrupt"):
                    failures += 1
                    if failures > _FIRST_RETRIES and not self._connected:
                        self._stop.set()
                        raise ValueError(
                            f"data.source=youtube: the site cannot be reached ({error.reason}): check the network and "
                            "fetch.proxy, or take the clips from elsewhere (docs/data.md)"
                        ) from None
                    if failures <= settings.retries:
                        self._sleep(max(0.05, settings.interval_s) * 2**failures)
                        continue
                if error.verdict == PASSING:
                    return self._fail(clip, error.reason)
                self._store.conclude(clip.clip_id, error.verdict, error.reason)
                self._conclude_failed()
                return error.verdict
            self._store.take_in(clip.clip_id, target)
            self._conclude_failed()
            self._gate.opened()
            return "ready"

    def _cut(self, clip: VggSoundClip, target: Path) -> None:
        """Write the section to `target`."""
        info = self._look_up(clip)
        self._connected = True
        duration = info.get("duration")
        if duration and clip.start_s >= duration:
            raise _RefusedError("missing", f"the video ends at {duration:g} s, before the clip begins")
        if info.get("live_status") in ("is_live", "is_upcoming"):
            raise _RefusedError(PASSING, "a live stream that has not ended")
        streams = info.get("requested_formats") or [info]
        command = [self._ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
        for stream in streams:
            command += [*self._input(stream), "-ss", str(clip.start_s), "-t", str(CLIP_S), "-i", stream["url"]]
        command += ["-map", "0:v:0?", "-map", f"{len(streams) - 1}:a:0?", *_ENCODING, str(target.absolute())]
        limit_s = 10 * self._settings.timeout_s
        try:
            done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise _RefusedError(PASSING, "timed out") from None
        said = done.stderr.decode(errors="replace").strip()
        if _BROKEN_OFF.search(said):
            verdict, reason = judge(_last_line(said, _BROKEN_OFF))
            raise _RefusedError(THROTTLED if verdict == THROTTLED else PASSING, reason)
        if "No space left" in said:
            raise OSError(f"{self._store.folder}: no space left; set fetch.folder")
        if done.returncode:
            raise _RefusedError(*judge(_last_line(said) or f"ffmpeg ended with {done.returncode}"))
        try:
            probe(target)
        except MediaError as error:
            if error.state == "corrupt":  # stage prepare finds whatever else is wrong with it
                raise _RefusedError("corrupt", str(error)) from None

    def _look_up(self, clip: VggSoundClip) -> dict[str, Any]:
        """What yt-dlp finds out about the video: streams, duration."""
        address = self._settings.youtube.format(youtube_id=clip.youtube_id, start=clip.start_s, clip_id=clip.clip_id)
        try:
            info: dict[str, Any] | None = self._client().extract_info(address, download=False)
        except self._yt_dlp.utils.DownloadError as error:
            cause = error.exc_info[1] if error.exc_info else None
            response = getattr(getattr(cause, "cause", None), "response", None)
            asked = str(response.headers.get("Retry-After", "")) if response is not None else ""
            raise _RefusedError(
                *judge(str(error)),
                wait_s=float(asked) if asked.isdigit() else 0.0,
                connected=not isinstance(getattr(cause, "cause", None), NO_CONNECTION),
            ) from None
        if not info:
            raise _RefusedError(PASSING, "yt-dlp found nothing")
        return info

    def _client(self) -> Any:
        """This thread's yt-dlp client; it prints nothing."""
        if not hasattr(self._local, "client"):
            settings = self._settings
            low = f"[height<={settings.max_height}][protocol^=http]"
            options: dict[str, Any] = {
                "quiet": True,
                "no_warnings": True,
                "noprogress": True,
                "logger": _Silent(),
                "color": "never",
                "cachedir": False,
                "noplaylist": True,
                "format": f"bv*{low}[ext=mp4]+ba[protocol^=http][ext=m4a]/b{low}/bv*{low}+ba[protocol^=http]/b/bv*+ba",
                "socket_timeout": settings.timeout_s,
                "retries": 0,
                "extractor_retries": 0,
                "ffmpeg_location": self._ffmpeg,
            }
            if settings.proxy:
                options["proxy"] = settings.proxy
            if settings.cookies:
                own = self._scratch / f"cookies-{threading.get_ident()}.txt"  # yt-dlp writes into it
                shutil.copyfile(settings.cookies, own)
                options["cookiefile"] = str(own)
            self._local.client = self._yt_dlp.YoutubeDL(options)
        return self._local.client

    def _input(self, stream: dict[str, Any]) -> list[str]:
        """ffmpeg's options for reading a stream as yt-dlp would."""
        options = ["-rw_timeout", str(round(self._settings.timeout_s * 1e6))]
        if self._settings.proxy:
            options += ["-http_proxy", self._settings.proxy]
        cookies = self._client().cookiejar.get_cookies_for_url(stream["url"])
        if cookies:
            lines = [f"{cookie.name}={cookie.value}; path={cookie.path}; domain={cookie.domain};" for cookie in cookies]
            options += ["-cookies", "\r\n".join(lines) + "\r\n"]
        headers = stream.get("http_headers") or {}
        if headers:
            options += ["-headers", "".join(f"{name}: {value}\r\n" for name, value in headers.items())]
        return options

    def _fail(self, clip: VggSoundClip, reason: str) -> str:
        """All attempts at a clip failed. If many new clips in a row fail, the cause is the site or the network, and the
        run stops."""
        if self._store.tries(clip.clip_id):
            self._store.conclude(clip.clip_id, "failed", reason)
            return "failed"
        with self._mutex:
            self._failed.append((clip.clip_id, reason))
            if len(self._failed) >= _BANNED_AFTER:
                self._stop.set()
                raise ValueError(
                    f"{len(self._failed)} clips in a row failed ({reason}): the network is down, or the site blocks "
                    "this address for now. What is fetched is kept; go on later with dvc repro, or set fetch.cookies, "
                    f"fetch.proxy, a longer fetch.interval_s (now {self._settings.interval_s:g}) or fewer fetch.workers"
                )
        return "failed"

    def _conclude_failed(self) -> None:
        """The site has answered: the clips that failed before did so for a reason of their own."""
        with self._mutex:
            for clip_id, reason in self._failed:
                self._store.conclude(clip_id, "failed", reason)
            self._failed.clear()

    def _sleep(self, mean_s: float) -> None:
        self._stop.wait(mean_s * random.uniform(0.5, 1.5))


class _Silent:
    """A logger for yt-dlp, whose errors arrive as exceptions."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


def _access(fetch: Fetch) -> str:
    """A hash of proxy and cookies; with others, clips are tried again that these could not get."""
    content = b""
    if fetch.cookies:
        try:
            content = Path(fetch.cookies).read_bytes()
        except OSError as error:
            raise ValueError(f"fetch.cookies={fetch.cookies!r} cannot be read: {error.strerror}") from None
    return sha256_text((fetch.proxy or "").encode() + b"\0" + content)[:16]


def _last_line(said: str, pattern: re.Pattern[str] | None = None) -> str:
    lines = [line for line in said.splitlines() if line.strip() and (pattern is None or pattern.search(line))]
    return lines[-1] if lines else ""


def _lasting(message: str) -> str:
    """A message without advice, and without what differs from one attempt to the next."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", message)
    text = re.sub(r"^ERROR:\s*", "", text.strip())
    text = re.sub(r"^\[[^\]]*\]\s*", "", text)  # [youtube], or ffmpeg's component with an address in memory
    text = re.sub(r"^(?:\[[^\]]*\]\s*)+", "", text)
    text = re.sub(r"^\S{1,20}: (?=[A-Z])", "", text)  # the id
    text = re.sub(r"(?:https?|file|tcp|tls)://\S+", "the address", text)
    text = re.sub(r"ends prematurely at .*", "ends prematurely", text)
    text = re.sub(r"^Error opening input(?: files?)?: ", "", text)
    text = re.sub(r"\s*\(caused by .*", "", text, flags=re.DOTALL)
    text = re.sub(r";? please report this issue.*", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"\s+", " ", text).strip().rstrip(".:;,")
    return text[:200] or "no reason given"
