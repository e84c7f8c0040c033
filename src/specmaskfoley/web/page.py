"""The page: its layout, and what its controls do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

from specmaskfoley.foley import Stopped
from specmaskfoley.foley.prompts import Prompt, parse_texts
from specmaskfoley.web import cards
from specmaskfoley.web.jobs import Job, sentence
from specmaskfoley.web.studio import (
    LONGEST_TEXT,
    MOST_CANDIDATES,
    MOST_SCALE,
    MOST_SEED,
    MOST_STEPS,
    SHORTEST_S,
    Choices,
    Result,
    Session,
    Studio,
)

Update = dict[Any, Any]
"""New values of some components."""

CSS = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
_TAKES_JS = files(__package__).joinpath("page.js").read_text(encoding="utf-8")
_HISTORY_JS = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button[data-result]");
  if (chosen) trigger("open", { result: Number(chosen.dataset.result) });
});"""
_EXAMPLES_JS = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button[data-example]");
  if (chosen) trigger("pick", { example: Number(chosen.dataset.example) });
});"""
_STATUS_JS = """let busy = false;
watch("value", () => {
  const works = element.querySelector(".busy") !== null;
  if (works && !busy) element.scrollIntoView({ behavior: "smooth", block: "nearest" });
  busy = works;
});"""
_KNOWN_JS = files(__package__).joinpath("known.js").read_text(encoding="utf-8")
_MARK_JS = "(take, begin, end) => { window.foleyMark?.(take, begin ?? 0, end ?? 0); }"
_POLL_S = 0.2
_ALONE_S = 5.0
_READY = "Ready."
_FONT = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
_EMBER = gr.themes.Color(
    "#fff4ed", "#ffe5d3", "#ffc7a5", "#ffa06d", "#fb7a3c", "#d9541a", "#bd4412", "#9a3512", "#7c2e14", "#652913",
    "#371207",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Fonts of the system alone: others would come from another host."""
    return gr.themes.Base(
        primary_hue=_EMBER, neutral_hue="stone", font=_FONT, font_mono=_MONO, radius_size="lg", spacing_size="md"
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",  # lighter ones are hard to read
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#2a2420",
        button_secondary_background_fill_hover_dark="#37302b",
        button_secondary_text_color_dark="*neutral_100",
        body_background_fill_dark="#14110f",
        block_background_fill_dark="#1e1a17",
        input_background_fill="*neutral_50",
        input_background_fill_dark="#14110f",
        block_border_color_dark="#37302b",
        border_color_primary_dark="#37302b",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )


class _Page:
    """Components that are filled in later, and the handlers that fill them in."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        gr.HTML(cards.head(studio.foley.knowledge), elem_id="head", apply_default_css=False)
        with gr.Row(elem_id="bench"):
            with gr.Column(scale=4, min_width=320, elem_id="controls"):
                self._controls()
            with gr.Column(scale=9, min_width=340, elem_id="results"):
                self._results()
        self._wire()

    def _controls(self) -> None:
        limits = self.studio.limits
        self.video = gr.Video(label="Video", sources=["upload", "webcam"], height=230, buttons=[], elem_id="video")
        self.examples = gr.HTML(
            cards.examples(self.studio.examples), js_on_load=_EXAMPLES_JS, visible=bool(self.studio.examples),
            elem_id="examples", apply_default_css=False,
        )  # fmt: skip
        self.text = gr.Textbox(
            label="Text: what is heard",
            info="A few words, or parts: 0-3: footsteps; 3-5: door slam. Empty: the picture alone decides.",
            placeholder="hammering nail",
            max_length=LONGEST_TEXT,
            elem_id="text",
        )
        self.remark = gr.HTML("", elem_id="remark", apply_default_css=False)
        knowledge = self.studio.foley.knowledge
        self.known = gr.HTML(cards.known(knowledge), js_on_load=_KNOWN_JS, elem_id="known", apply_default_css=False)
        with gr.Row(elem_id="go"):
            self.make = gr.Button("Make sound", variant="primary", scale=3, min_width=120, elem_id="make")
            self.cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=80, elem_id="cancel")
        self.status = gr.HTML(cards.status(_READY), js_on_load=_STATUS_JS, elem_id="status", apply_default_css=False)
        self.candidates = gr.Slider(
            1, MOST_CANDIDATES, value=2, step=1, label="Takes", elem_id="candidates",
            info="Several are judged by how well they fit, and ordered.",
        )  # fmt: skip
        with gr.Accordion("More about the sound", open=False, elem_id="words"):
            self._words()
        with gr.Accordion("More settings", open=False, elem_id="more"):
            self._settings()
        gr.HTML(
            f'<p class="quiet">Up to {limits.minutes:g} min and {limits.megabytes:g} MB. Video and sounds are removed '
            "when you close the page.</p>",
            apply_default_css=False,
        )

    def _words(self) -> None:
        longest, hears = self.studio.limits.minutes * 60, self.studio.foley.features.hears
        self.negative = gr.Textbox(
            label="What is not to be heard", info="One more pass in every step: takes longer.",
            placeholder="speech, music", max_length=LONGEST_TEXT, elem_id="negative",
        )  # fmt: skip
        self.like = gr.Audio(
            label="A sound to be like, in place of a text", sources=["upload"], type="filepath", editable=False,
            buttons=[], visible=hears, elem_id="like",
        )  # fmt: skip
        self.duration = gr.Number(
            min(_ALONE_S, longest), label="Length without a video (s)", minimum=SHORTEST_S, maximum=longest,
            info=f"Where no video is chosen, the text {'or that sound ' * hears}alone is made into one.",
            elem_id="duration",
        )  # fmt: skip

    def _settings(self) -> None:
        defaults, levels = self.studio.defaults, self.studio.foley.params.backbone.levels
        several = " Of the first of several codebooks; the others take half." if levels > 1 else ""
        self.seed = gr.Slider(
            0, MOST_SEED, value=0, step=1, label="Seed", elem_id="seed",
            info="Another seed gives another sound; the same seed gives the same sound.",
        )  # fmt: skip
        self.steps = gr.Slider(
            1, MOST_STEPS, value=defaults.first_steps, step=1, label="Steps", elem_id="steps",
            info="Passes in which a sound takes shape; more take longer." + several,
        )  # fmt: skip
        self.scale = gr.Slider(
            0, MOST_SCALE, value=defaults.scale, step=0.1, label="Guidance", elem_id="scale",
            info="How strictly picture and text are followed.",
        )  # fmt: skip
        self.keep = gr.Checkbox(
            label="Keep the video's own sound", info="Mixed under the new one, in the video.", elem_id="keep"
        )
        self.next = gr.Checkbox(
            True, label="Another seed after every result", info="So that the same button makes new sounds.",
            elem_id="next",
        )  # fmt: skip

    def _results(self) -> None:
        self.takes = gr.HTML(cards.EMPTY, js_on_load=_TAKES_JS, elem_id="takes", apply_default_css=False)
        with gr.Column(visible=False, elem_id="part") as self.part:
            gr.HTML(
                "<h3>Change a part</h3><p class='quiet'>Drag over a spectrogram, or type seconds. The rest of the take "
                "stays as it is, to the sample.</p>",
                elem_id="parthead",
                apply_default_css=False,
            )
            with gr.Row(elem_id="range"):
                self.take = gr.Number(1, label="Take", precision=0, minimum=1, min_width=70, elem_id="take")
                self.begin, self.end = (
                    gr.Number(None, label=f"{label} (s)", minimum=0, min_width=90, step=0.05, elem_id=name)
                    for name, label in (("begin", "From"), ("end", "To"))
                )
                self.remake = gr.Button("Make this part anew", min_width=170, elem_id="remake")
        gr.HTML("<h3>History</h3>", elem_id="historyhead", apply_default_css=False)
        self.history = gr.HTML(cards.NO_HISTORY, js_on_load=_HISTORY_JS, elem_id="history", apply_default_css=False)

    def _wire(self) -> None:
        choices = [
            self.text, self.seed, self.candidates, self.steps, self.scale, self.keep, self.negative, self.like,
            self.duration,
        ]  # fmt: skip
        span = [self.take, self.begin, self.end]
        shown = [self.takes, self.part, *span, self.history]
        running = [self.status, self.seed, self.make, self.remake, self.cancel, *shown]
        # The studio has a queue of its own, in which every job knows its place: Gradio's must not hold jobs back.
        free: dict[str, Any] = {
            "concurrency_limit": None, "show_progress": "hidden", "api_visibility": "undocumented",
        }  # fmt: skip
        make = [self.make.click, self.text.submit]
        gr.on(make, self._make, [self.video, *choices, self.next], running, api_name="make", **free)
        chosen = [self.video, self.text, self.remark, self.like]
        picked = self.examples.pick(self._pick, None, chosen, queue=False, api_name="pick", **free)
        picked.success(self._make, [self.video, *choices, self.next], running, api_name="make_picked", **free)
        self.known.word(self._word, None, [self.text, self.remark], queue=False, api_name="word", **free)
        self.known.typed(self._typed, None, self.remark, queue=False, api_name="typed", **free)
        self.remake.click(self._remake, [*span, *choices, self.next], running, api_name="remake", **free)
        self.cancel.click(self._cancel, None, self.status, queue=False, api_name="cancel", **free)
        given = [self.video.upload, self.video.stop_recording]
        gr.on(given, self._check, self.video, [self.video, self.status], api_name="look", **free)
        self.like.upload(self._check_sound, self.like, [self.like, self.status], api_name="look_sound", **free)
        self.takes.choose(self._choose, None, span, queue=False, api_name="choose", **free)
        self.history.open(self._open, None, [*shown, self.status], queue=False, api_name="open", **free)
        gr.on([one.change for one in span], None, span, None, js=_MARK_JS)

    async def _make(self, request: gr.Request, video: Any, *values: Any) -> AsyncIterator[Update]:
        *chosen, another = values

        def begin(session: Session) -> Job:
            return self.studio.make(session, video, Choices.checked(self.studio.defaults, *chosen))

        async for update in self._follow(request, begin, another):
            yield update

    async def _remake(
        self, request: gr.Request, take: Any, first: Any, last: Any, *values: Any
    ) -> AsyncIterator[Update]:
        *chosen, another = values

        def begin(session: Session) -> Job:
            choices = Choices.checked(self.studio.defaults, *chosen)
            return self.studio.remake(session, session.shown, take, first, last, choices)

        async for update in self._follow(request, begin, another):
            yield update

    async def _follow(
        self, request: gr.Request, begin: Callable[[Session], Job], another: bool
    ) -> AsyncIterator[Update]:
        """Start a job, and show its progress until it ends; it is cancelled when the page is gone."""
        session = self.studio.session(str(request.session_hash))
        try:
            job = begin(session)
        except (ValueError, OSError) as error:
            yield self._failed(error)
            return
        try:
            yield self._buttons(busy=True)
            while not job.future.done():
                yield {self.status: self._progress(job)}
                await asyncio.sleep(_POLL_S)
            yield self._buttons(busy=False) | self._ended(session, job, another)
        finally:
            job.cancel()

    def _ended(self, session: Session, job: Job, another: bool) -> Update:
        """
        Args:
            another: whether the seed is moved on, for other sounds at the next press of the button.
        """
        try:
            result: Result = job.result()
        except Stopped:
            return {self.status: cards.status("Cancelled. Nothing was changed.")}
        except Exception as error:  # the page must say so, and go on
            return self._failed(error)
        following = (result.choices.sampling.seed + len(result.takes)) % (MOST_SEED + 1)
        seed: Update = {self.seed: following} if another else {}
        return self._show(session, result) | {self.status: cards.done(result)} | seed

    def _failed(self, error: Exception) -> Update:
        return {self.status: cards.status(sentence(error), kind="bad")}

    def _progress(self, job: Job) -> str:
        if job.started_s is None:
            before = self.studio.jobs.before(job)
            jobs = "1 job comes" if before == 1 else f"{before} jobs come"
            return cards.status(f"In line: {jobs} before yours", kind="busy")
        message = job.message[:1].upper() + job.message[1:] or "Starting"
        return cards.status(message, kind="busy", share=job.share, left_s=job.left_s)

    def _show(self, session: Session, result: Result) -> Update:
        session.shown = result.number
        return {
            self.takes: cards.takes(result),
            self.history: cards.history(session.results, result.number),
            self.part: gr.update(visible=True),
            self.take: gr.update(value=1, maximum=len(result.takes)),
            self.begin: None,
            self.end: None,
        }

    def _buttons(self, *, busy: bool) -> Update:
        return {
            self.make: gr.update(interactive=not busy),
            self.remake: gr.update(interactive=not busy),
            self.cancel: gr.update(interactive=busy),
        }

    def _cancel(self, request: gr.Request) -> Any:
        job = self.studio.session(str(request.session_hash)).job
        if job is None or job.future.done():
            return gr.skip()
        job.cancel()
        return cards.status("Stopping", kind="busy")

    async def _check(self, video: str | None, request: gr.Request) -> Update:
        session = self.studio.session(str(request.session_hash))
        try:
            info = (await asyncio.to_thread(self.studio.accept, session, video)).info
        except (ValueError, OSError) as error:
            return {self.video: None} | self._failed(error)
        sound = "with sound" if info.audio_rate else "silent"
        facts = f"{info.duration_s:.2f} s, {info.width} x {info.height}, {info.fps:.4g} fps, {sound}"
        return {self.status: cards.status(f"Video: {facts}.")}

    async def _check_sound(self, sound: str | None, request: gr.Request) -> Update:
        session = self.studio.session(str(request.session_hash))
        try:
            await asyncio.to_thread(self.studio.accept_sound, session, sound or "")
        except (ValueError, OSError) as error:
            return {self.like: None} | self._failed(error)
        return {self.status: cards.status("The sound to be like is taken in place of a text.")}

    def _pick(self, event: gr.EventData) -> Any:
        number, videos = event._data.get("example"), self.studio.examples
        if not (isinstance(number, int) and 0 <= number < len(videos)):
            return gr.skip()
        chosen: Update = {self.video: str(videos[number].path), self.text: videos[number].name}
        return chosen | {self.remark: "", self.like: None}

    def _word(self, event: gr.EventData) -> Any:
        word = event._data.get("word")
        return {self.text: word, self.remark: ""} if word in self.studio.foley.knowledge.words else gr.skip()

    def _typed(self, event: gr.EventData) -> str:
        try:
            prompt = Prompt.of(parse_texts([str(event._data.get("text"))[:LONGEST_TEXT]]))
        except ValueError:  # of a text that is not finished
            return ""
        return cards.remark(self.studio.foley.knowledge.remarks(prompt.texts))

    def _choose(self, event: gr.EventData) -> Update:
        take, begin, end = (_finite(event._data.get(name)) for name in ("take", "begin", "end"))
        chosen: Update = {self.take: take}
        return chosen if begin is None else chosen | {self.begin: begin, self.end: end}

    def _open(self, event: gr.EventData, request: gr.Request) -> Update:
        session = self.studio.session(str(request.session_hash))
        try:
            return self._show(session, session.result(event._data.get("result")))
        except ValueError as error:
            return self._failed(error)


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    gr.set_static_paths([one.path.parent for one in studio.examples])  # else each user's leaving removes them
    with gr.Blocks(title="SpecMaskFoley", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        _Page(studio)

        def leave(request: gr.Request) -> None:
            studio.leave(str(request.session_hash))

        page.unload(leave)
    return page.queue(default_concurrency_limit=None, max_size=64)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e6 else None
