// Runs once for the takes: `element` holds the cards, `trigger` tells the server what was chosen.
const card = (node) => node.closest(".take");
const number = (node) => Number(card(node).dataset.take);
const length = (strip) => Number(strip.dataset.duration);
const at = (strip, event) => {
  const box = strip.getBoundingClientRect();
  return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
};
const player = (node) => card(node).querySelector("video, audio");

const mark = (take, begin, end) => {
  for (const one of element.querySelectorAll(".take")) {
    const chosen = Number(one.dataset.take) === Number(take);
    one.classList.toggle("chosen", chosen && one.parentElement.dataset.count !== "1");
    const part = one.querySelector(".part"), seconds = length(one.querySelector(".strip"));
    const first = Math.min(seconds, Math.max(0, begin)), last = Math.min(seconds, Math.max(0, end));
    part.style.display = chosen && last > first ? "block" : "none";
    part.style.left = `${(100 * first) / seconds}%`;
    part.style.width = `${(100 * (last - first)) / seconds}%`;
  }
};
window.foleyMark = mark; // the number fields say where, too

let drag = null;
element.addEventListener("pointerdown", (event) => {
  const strip = event.target.closest(".strip");
  if (!strip || event.button) return;
  drag = { strip, from: at(strip, event), x: event.clientX, moved: false };
  strip.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.moved ||= Math.abs(event.clientX - drag.x) > 4;
  if (!drag.moved) return;
  const ends = [drag.from, at(drag.strip, event)].sort((a, b) => a - b).map((share) => share * length(drag.strip));
  mark(number(drag.strip), ...ends);
});
element.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { strip, from, moved } = drag, to = at(strip, event), seconds = length(strip);
  drag = null;
  if (moved) {
    const [begin, end] = [from, to].sort((a, b) => a - b).map((share) => Number((share * seconds).toFixed(2)));
    trigger("choose", { take: number(strip), begin, end });
  } else {
    player(strip).currentTime = from * seconds;
    follow(player(strip));
  }
});
element.addEventListener("pointercancel", () => (drag = null));
element.addEventListener("click", (event) => {
  if (!event.target.closest(".choose")) return;
  trigger("choose", { take: number(event.target) });
  document.getElementById("part")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
});

const follow = (medium) => {
  const one = card(medium);
  if (!one) return;
  const strip = one.querySelector(".strip"), cursor = one.querySelector(".cursor");
  cursor.style.display = medium.currentTime > 0 ? "block" : "none";
  cursor.style.left = `${Math.min(100, (100 * medium.currentTime) / length(strip))}%`;
  if (!medium.paused && medium.isConnected) requestAnimationFrame(() => follow(medium));
};
element.addEventListener("play", (event) => {
  for (const other of element.querySelectorAll("video, audio")) if (other !== event.target) other.pause();
  follow(event.target);
}, true);
for (const name of ["pause", "seeked", "ended"]) element.addEventListener(name, (event) => follow(event.target), true);
// Where the results lie below the controls, they would come unseen.
watch("value", () => {
  if (matchMedia("(max-width: 800px)").matches) element.closest("#takes").scrollIntoView({ behavior: "smooth", block: "start" });
});
addEventListener("beforeunload", (event) => {
  if (element.querySelector(".take") || document.querySelector("#status .busy")) event.preventDefault();
});
// The picture is copied as it is, and not every browser shows every codec: then the sound plays alone.
element.addEventListener("error", (event) => {
  const video = event.target;
  if (video.tagName !== "VIDEO") return;
  const sound = Object.assign(document.createElement("audio"), { controls: true, src: video.dataset.sound });
  const note = Object.assign(document.createElement("p"), { className: "nopicture" });
  note.textContent = "This browser does not show this video's format. The sound plays here; the files are whole.";
  video.replaceWith(note, sound);
}, true);
