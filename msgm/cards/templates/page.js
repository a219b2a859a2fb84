"use strict";
// Tables sort by a column when the button in its heading is pressed; pages show everything without this, too.
const number = (text) => parseFloat(text.replace(/^[^\d.-]+/, ""));
// What has no number stands last, whichever way a column is sorted.
const compare = (a, b, words, sign) => {
  const [x, y] = words ? [NaN, NaN] : [number(a), number(b)];
  if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y);
  return sign * (isNaN(x) ? a.localeCompare(b, "en", { numeric: true }) : x - y);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(heading.firstChild);
    heading.prepend(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent.trim();
      const words = heading.classList.contains("words");
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(text(a), text(b), words, down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
// What is folded is printed, too.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
// A picture that is shown in full closes with Escape.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("figure:target .close")?.click();
});
