"""The page as a user meets it, in a real browser and against the real server."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from helpers.page_server import Server
from helpers.untrained import write_noise
from matplotlib.image import imread

from specmaskfoley.foley.knowledge import SOUNDS_FILE
from specmaskfoley.media.writing import write_video

pytestmark = pytest.mark.browser

SHOTS = os.environ.get("SPECMASKFOLEY_SCREENSHOTS")
WAIT_MS = 240_000


class Page:
    """A tab with the page, and what it asked for and complained of."""

    def __init__(self, browser: Any, url: str, width: int = 1280, colours: str = "light") -> None:
        self.tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours)
        self.tab.set_default_timeout(WAIT_MS)
        self.asked: set[str] = set()
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked.add(urlsplit(request.url).netloc or request.url[:20]))
        self.tab.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(url)
        self.tab.wait_for_selector("#make")

    def choose(self, video: Path) -> None:
        self.tab.set_input_files("#video input[type=file]", str(video))
        self.status("Video:")

    def status(self, begins: str) -> str:
        """Wait until the status line says so."""
        try:
            self.tab.wait_for_function(
                "begins => document.querySelector('#status .says')?.textContent.startsWith(begins)", arg=begins
            )
        except Exception as error:
            error.add_note(f"the status line says: {self.tab.inner_text('#status')}")
            raise
        return str(self.tab.inner_text("#status"))

    def set(self, name: str, value: float) -> None:
        field = self.tab.locator(f"#{name} input[type=number]")
        field.fill(str(value))
        field.blur()

    def drag(self, take: int, begin: float, end: float) -> None:
        """Over shares of a take's spectrogram."""
        strip = self.tab.locator(".strip").nth(take - 1)
        strip.scroll_into_view_if_needed()
        box = strip.bounding_box()
        y = box["y"] + box["height"] / 2
        self.tab.mouse.move(box["x"] + begin * box["width"], y)
        self.tab.mouse.down()
        self.tab.mouse.move(box["x"] + end * box["width"], y, steps=6)
        self.tab.mouse.up()

    def shot(self, name: str) -> np.ndarray:
        """(h, w, 3) of the whole page; kept where SPECMASKFOLEY_SCREENSHOTS says."""
        png = self.tab.screenshot(full_page=True, animations="disabled")
        if SHOTS:
            (Path(SHOTS) / f"{name}.png").write_bytes(png)
        return imread(io.BytesIO(png), format="png")[..., :3]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("clips") / 'my "clip" $(1).mp4', 3.0)


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Page]:
    page = Page(browser, server.url)
    yield page
    assert page.asked <= {urlsplit(server.url).netloc, "blob:" + server.url[:15]}
    assert page.complaints == []
    page.tab.close()


def test_upload_generate_play_change_a_part_and_go_back(page: Page, clip: Path) -> None:
    tab = page.tab
    page.shot("empty")
    page.choose(clip)
    assert page.status("Video: 3.00 s, 64 x 48, 25 fps, with sound")
    tab.fill("#text textarea, #text input", "<i>door</i> slam")
    tab.click("#make")
    page.status("Done: 2 takes of 3.00 s")
    assert tab.locator(".take").count() == 2
    assert tab.locator(".take i, .result h3 i, .remark i").count() == 0, "what a user writes is no markup"
    assert "<i>door</i> slam" in tab.inner_text(".result h3")
    assert tab.locator("dl.scores").count() == 2

    for medium in range(2):
        times = tab.evaluate(
            """async number => {
                const player = document.querySelectorAll('.take video')[number], before = player.currentTime;
                await player.play();
                const end = performance.now() + 20000;
                while (player.currentTime < 0.5 && performance.now() < end) await new Promise(r => setTimeout(r, 50));
                return [before, player.currentTime, player.duration, player.videoWidth];
            }""",
            medium,
        )
        assert times[0] == 0
        assert times[1] >= 0.5
        assert times[2] == pytest.approx(3.0, abs=0.05)
        assert times[3] == 64
    assert tab.evaluate("[...document.querySelectorAll('.take video')].map(player => player.paused)") == [True, False]
    assert tab.locator(".cursor").nth(1).is_visible()
    tab.evaluate("document.querySelectorAll('video').forEach(player => player.pause())")
    sound = tab.evaluate(
        """async () => {
            const player = new Audio(document.querySelector('.files a:nth-child(2)').href);
            await player.play();
            const end = performance.now() + 20000;
            while (player.currentTime < 0.3 && performance.now() < end) await new Promise(r => setTimeout(r, 50));
            return [player.currentTime, player.duration];
        }"""
    )
    assert sound[0] >= 0.3
    assert sound[1] == pytest.approx(3.0, abs=0.01)
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")

    page.drag(2, 0.25, 0.6)
    tab.wait_for_function("document.querySelector('#end input').value === '1.8'")
    assert [tab.input_value(f"#{name} input") for name in ("take", "begin", "end")] == ["2", "0.75", "1.8"]
    assert tab.locator(".strip .part").nth(1).is_visible()
    assert not tab.locator(".strip .part").nth(0).is_visible()
    page.set("begin", 1.0)
    tab.wait_for_function("parseFloat(document.querySelectorAll('.strip .part')[1].style.left) > 33")
    page.shot("part")
    tab.click("#remake")
    tab.wait_for_selector(".history li:nth-child(2)")
    assert "1.00 to 1.80 s anew" in tab.inner_text(".result h3")
    assert "from take 2 of no. 1" in tab.inner_text(".result")
    assert tab.locator(".strip .made").count() == 2
    page.shot("anew")

    for position, ending in ((1, ".mp4"), (2, ".flac"), (3, ".json")):
        with tab.expect_download() as download:
            tab.click(f".take[data-take='1'] .files a:nth-child({position})")
        assert download.value.suggested_filename == f"my-22clip-22-1-2-take-1{ending}"  # browsers send %22
        assert Path(download.value.path()).stat().st_size > 500

    tab.click(".history button[data-result='1']")
    tab.wait_for_function("document.querySelectorAll('.strip .made').length === 0")
    assert tab.get_attribute(".history button[data-result='1']", "aria-current") == "true"


def test_cancel_and_the_line(browser: Any, model: Path, tmp_path: Path) -> None:
    """With a job of half a minute and more: clicks take seconds where much else runs."""
    long = write_noise(tmp_path / "long.mp4", 180.0, fps=4)
    server = Server(model, tmp_path / "server")
    page, other = Page(browser, server.url), Page(browser, server.url)
    for one in (page, other):
        one.choose(long)
        one.tab.click("#more button")
        one.set("steps", 64)
        one.set("candidates", 4)
    for one in (page, other):
        one.tab.click("#make")
        one.tab.wait_for_selector("#status .busy")
    page.status("Window")
    assert "1 job comes before yours" in other.status("In line")
    other.shot("line")
    other.tab.click("#cancel")
    other.status("Cancelled")
    assert page.tab.is_disabled("#make")
    page.shot("busy")
    page.tab.click("#cancel")
    assert page.status("Cancelled") == "Cancelled. Nothing was changed."
    assert page.tab.is_enabled("#make")
    assert page.tab.is_disabled("#cancel")
    page.set("steps", 1)
    page.set("candidates", 1)
    page.tab.click("#make")
    page.status("Done: 1 take of 180.00 s")
    assert "Not judged" in page.tab.inner_text(".take")
    for one in (page, other):
        assert one.complaints == []
        one.tab.close()
    server.stop()


def test_bad_files_are_one_sentence(page: Page, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "page.mp4").write_text("<script>alert(1)</script>")
    page.tab.set_input_files("#video input[type=file]", str(tmp_path / "page.mp4"))
    said = page.status("This file cannot be")
    assert len(said.splitlines()) == 1
    page.shot("bad")
    assert page.tab.locator("#video input[type=file]").count() == 1, "another can be chosen at once"
    page.tab.click("#make")
    page.status("Choose a video first")
    page.choose(clip)


def test_a_closed_page_leaves_no_files(browser: Any, server: Server, clip: Path) -> None:
    before = set(server.session_files())
    page = Page(browser, server.url)
    page.choose(clip)
    page.tab.click("#make")
    page.status("Done")
    new = set(server.session_files()) - before
    assert len(new) == 2 + 2 * 4
    page.tab.close()
    for _ in range(600):
        if not any(path.exists() for path in new):
            return
        time.sleep(0.1)
    raise AssertionError("files of a closed page are left")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_and_is_readable(browser: Any, server: Server, clip: Path, width: int, colours: str) -> None:
    page = Page(browser, server.url, width, colours)
    page.choose(clip)
    page.tab.fill("#text textarea, #text input", "dog barking")
    page.tab.click("#make")
    page.status("Done")
    inner, scrolled = page.tab.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert scrolled <= inner == width
    cut = page.tab.evaluate(
        """[...document.querySelectorAll('button:not(.label-wrap), h1, h3, h4, p, dd, label, .says')].filter(element =>
            element.offsetWidth && element.scrollWidth > element.clientWidth + 2 && getComputedStyle(element).display
            !== 'inline').map(element => element.outerHTML.slice(0, 120))"""
    )
    assert cut == []
    side_by_side = page.tab.evaluate("new Set([...document.querySelectorAll('.take')].map(t => t.offsetTop)).size")
    assert side_by_side == (1 if width == 1280 else 2)
    picture = page.shot(f"{colours}-{width}")
    assert picture.shape[1] == width
    assert (picture[5, 5].mean() < 0.2) == (colours == "dark")
    drawn = np.abs(picture - picture[5, 5]).max(axis=-1) > 0.1
    assert drawn.mean() > 0.1
    assert not drawn[:, -1].any(), "something is cut off at the edge"
    texts = [".quiet", "dl.scores dt", "dl.scores dd", ".take .why", ".take summary", ".result .remark", ".scale span"]
    for text in (*texts, "#make", ".files a", "#head h1", "#known button", "#examples span"):
        assert contrast(page, text) >= 4.5, text
    page.tab.close()


def test_one_click_on_an_example_is_a_sound(page: Page) -> None:
    tab = page.tab
    assert tab.inner_text("#head p").endswith("Model: SpecMaskFoley mini")
    assert len(set(tab.locator("#examples button").all_inner_texts())) == 4
    tab.click("#examples button:has-text('hammering nail')")
    page.status("Done: 2 takes")
    assert tab.input_value("#text textarea, #text input") == "hammering nail"
    assert tab.evaluate("document.querySelector('#video video').videoWidth") > 0
    assert tab.locator(".remark").count() == 0
    tab.click(".take details summary")
    assert "how far sound and picture seem to be apart" in tab.inner_text(".take details")
    page.shot("example")
    tab.fill("#text textarea, #text input", "")  # the video of an example stays one's video
    tab.click("#make")
    tab.wait_for_selector(".history li:nth-child(2)")
    assert "Picture alone" in tab.inner_text(".result h3")
    with tab.expect_download() as download:
        tab.click(".files a:nth-child(1)")
    assert download.value.suggested_filename == "hammering-nail-2-take-1.mp4"


def test_words_alone_a_sound_to_be_like_and_what_is_not_to_be_heard(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    tab.click("#words button")
    text = tab.locator("#text textarea, #text input")
    text.fill("0-1: rain falling")
    text.press("Shift+Enter")
    text.type("1-2: dog barking")
    tab.wait_for_selector("#remark .remark")
    assert tab.inner_text("#remark").startswith('"dog barking" is not among')
    page.set("duration", 2.5)
    tab.fill("#negative textarea, #negative input", "music")
    page.shot("words")
    assert tab.input_value("#duration input[type=number]") == "2.5"
    assert text.input_value() == "0-1: rain falling\n1-2: dog barking"
    text.press("Enter")
    page.status("Done: 2 takes of 2.50 s")
    assert tab.inner_text(".result h3") == (
        "\N{LEFT DOUBLE QUOTATION MARK}0-1: rain falling; 1-2: dog barking\N{RIGHT DOUBLE QUOTATION MARK}, without "
        "\N{LEFT DOUBLE QUOTATION MARK}music\N{RIGHT DOUBLE QUOTATION MARK}"
    )
    assert tab.locator(".take video").count() == 0
    assert tab.locator(".take[data-take='1'] .files a").all_inner_texts() == ["Sound", "Recipe"]
    heard = tab.evaluate(
        """async () => {
            const player = document.querySelector('.take audio');
            await player.play();
            const end = performance.now() + 20000;
            while (player.currentTime < 0.3 && performance.now() < end) await new Promise(r => setTimeout(r, 50));
            player.pause();
            return [player.currentTime, player.duration];
        }"""
    )
    assert heard[0] >= 0.3
    assert heard[1] == pytest.approx(2.5, abs=0.01)
    page.shot("alone")
    page.drag(1, 0.2, 0.6)
    tab.wait_for_function("document.querySelector('#end input').value === '1.5'")
    tab.click("#remake")
    tab.wait_for_selector(".history li:nth-child(2)")
    assert "0.50 to 1.50 s anew" in tab.inner_text(".result h3")

    for name, peak, said in (
        ("silent", 0.0, "The sound to be like is silent"),
        ("tone", 0.3, "The sound to be like is taken"),
    ):
        soundfile.write(tmp_path / f"{name}.wav", peak * np.sin(np.arange(16000) * 0.3), 16000)
        tab.set_input_files("#like input[type=file]", str(tmp_path / f"{name}.wav"))
        page.status(said)
    tab.wait_for_selector("#like button[aria-label=Play]")
    tab.click("#make")
    page.status("Say what is heard, or give a sound to be like, not both")
    text.fill("")
    tab.click("#make")
    tab.wait_for_selector(".history li:nth-child(3)")
    page.shot("like")
    assert "Like the given sound" in tab.inner_text(".result h3")


def test_the_known_sounds_and_an_unknown_word(page: Page, clip: Path) -> None:
    tab = page.tab
    assert tab.locator("#known li").count() == 12
    tab.click("#known button:has-text('playing drum')")
    tab.wait_for_function("document.querySelector('#text textarea, #text input').value === 'playing drum'")
    tab.fill("#text textarea, #text input", "dog <b>barking</b>")
    tab.wait_for_selector("#remark .remark")
    told = '"dog <b>barking</b>" is not among the 12 sounds that this model was trained on'
    assert told in tab.inner_text("#remark")
    page.choose(clip)
    tab.click("#make")
    page.status("Done")
    assert told in tab.inner_text(".result .remark")
    page.shot("unknown")
    tab.click("#known button:has-text('rain falling')")
    tab.wait_for_selector("#remark .remark", state="detached")


def test_many_sounds_are_searched(browser: Any, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    sounds = [f"{animal} {does}" for animal in ("cat", "cow", "dog", "duck", "owl") for does in "abcdefgh"]
    (tmp_path / "model" / SOUNDS_FILE).write_text("\n".join(sounds), encoding="utf-8")
    server = Server(tmp_path / "model", tmp_path / "server")
    page = Page(browser, server.url)
    tab = page.tab
    tab.fill("#known input", " DOG ")
    visible = tab.locator("#known li:visible")
    assert visible.all_inner_texts() == [sound for sound in sounds if sound.startswith("dog")]
    page.shot("search")
    visible.nth(2).locator("button").click()
    tab.wait_for_function("document.querySelector('#text textarea, #text input').value === 'dog c'")
    tab.fill("#known input", "")
    assert visible.count() == len(sounds)
    assert page.complaints == []
    tab.close()
    server.stop()


def test_results_come_into_view_on_a_phone_and_a_reload_asks(browser: Any, server: Server) -> None:
    page, asked = Page(browser, server.url, 390), []
    tab = page.tab
    tab.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    tab.reload()
    tab.wait_for_selector("#make")
    assert asked == [], "there is nothing to lose"
    tab.click("#examples button >> nth=0")
    tab.wait_for_function("document.querySelector('#status')?.getBoundingClientRect().bottom <= innerHeight")
    page.status("Done")
    tab.wait_for_function("Math.abs(document.querySelector('#takes').getBoundingClientRect().top) < 40")
    tab.reload()
    tab.wait_for_selector("#make")
    assert asked == ["beforeunload"]
    assert tab.locator(".take").count() == 0
    tab.close()


def test_players_show_a_picture_that_is_not_black(browser: Any, server: Server, tmp_path: Path) -> None:
    frames = np.zeros((60, 48, 96, 3), np.uint8)
    frames[25:, :, 48:] = 255
    write_video(tmp_path / "fades in.mp4", frames, 20)
    page = Page(browser, server.url)
    page.choose(tmp_path / "fades in.mp4")
    page.tab.click("#make")
    page.status("Done")
    shape, brightness = page.tab.evaluate(
        """async () => {
            const poster = await fetch(document.querySelector('.take video').poster);
            const image = await createImageBitmap(await poster.blob());
            const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const at = x => context.getImageData(x * image.width, image.height / 2, 1, 1).data[0];
            return [[image.width, image.height], [at(0.2), at(0.8)]];
        }"""
    )
    assert shape == [480, 240]
    assert brightness[0] < 30
    assert brightness[1] > 225
    page.tab.close()


def test_a_recording_of_the_camera_is_a_video_too(page: Page) -> None:
    page.tab.click("#video .source-selection button[aria-label*='camera']")
    page.tab.locator("#video button").first.click()  # allows the camera
    page.tab.wait_for_function("document.querySelector('#video video')?.videoWidth > 0")
    record = page.tab.locator("#video .button-wrap button").first
    record.click()
    time.sleep(2)
    page.tab.evaluate(  # where much else runs, fewer frames are taken
        """async () => {
            const seen = () => document.querySelector('#video video').getVideoPlaybackQuality().totalVideoFrames;
            for (const before = seen(); seen() < before + 60; ) await new Promise(then => setTimeout(then, 50));
        }"""
    )
    record.click()
    page.status("Video:")
    page.tab.click("#make")
    page.tab.wait_for_selector(".take[data-take='2']")  # silent or not: every recording is another


def contrast(page: Page, selector: str) -> float:
    """WCAG's ratio of a text to what is behind it."""
    ratio: float = page.tab.evaluate(
        """selector => {
            const scale = text => text.startsWith('color(srgb') ? 255 : 1;
            const rgb = text => text.match(/[\\d.]+/g).map((value, index) => value * (index < 3 ? scale(text) : 1));
            const light = ([r, g, b]) => [r, g, b].map(value => value / 255)
                .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
                .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
            const element = document.querySelector(selector);
            let behind = element;
            while (behind && !(rgb(getComputedStyle(behind).backgroundColor)[3] !== 0)) behind = behind.parentElement;
            const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
                .map(text => light(rgb(text))).sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
        }""",
        selector,
    )
    return ratio
