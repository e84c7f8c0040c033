// Runs once for the known sounds: a click takes one, and who types is told whether the text is known.
element.addEventListener("click", (event) => {
  const chosen = event.target.closest("li button");
  if (chosen) trigger("word", { word: chosen.textContent });
});
element.addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const item of element.querySelectorAll("li")) item.hidden = !item.textContent.toLowerCase().includes(wanted);
});
let pause = 0;
document.addEventListener("input", (event) => {
  if (!event.target.closest("#text")) return;
  clearTimeout(pause);
  pause = setTimeout(() => trigger("typed", { text: event.target.value }), 500);
});
