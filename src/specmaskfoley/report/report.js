// Columns are sorted by a click on their heading: best first, then the other way round, then as they were.
const byWords = new Intl.Collator("en", { numeric: true });
for (const table of document.querySelectorAll("table.scores")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  // A row that belongs to the one above it moves with it.
  const groups = [];
  for (const row of body.rows) {
    if (row.classList.contains("beneath")) groups.at(-1).push(row);
    else groups.push([row]);
  }
  const valueOf = (group, column) => {
    const value = group[0].cells[column].dataset.value;
    return value === undefined ? null : Number(value);
  };
  const wordsOf = (group, column) => group[0].cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const numeric = groups.some((group) => valueOf(group, column) !== null);
    const first = head.textContent.includes("↑") ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "Sort by this column";
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = now === first ? second : now === second ? null : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const compare = (one, other) => {
        if (!numeric) return sign * byWords.compare(wordsOf(one, column), wordsOf(other, column));
        const a = valueOf(one, column), b = valueOf(other, column);
        if (a === null || b === null) return (a === null) - (b === null); // without a number: last either way
        return sign * (a - b);
      };
      const order = next ? [...groups].sort(compare) : groups;
      body.append(...order.flat());
    });
  });
}
