"use strict";
// Tables sort by a column when the button in its heading is pressed; pages show everything without this, too.
const number = (text) => parseFloat(text.replace(/^[^\d.-]+/, ""));
const compare = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || a.localeCompare(b);
  return x - y;
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
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * compare(text(a), text(b)));
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
