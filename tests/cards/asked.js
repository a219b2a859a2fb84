// What test_browser.py asks a page: each function returns the faults that it finds, in words.
const faults = () => {
  const found = [], visible = (e) => e.checkVisibility({visibilityProperty: true});
  const name = (e) => (e.getAttribute("aria-label") || e.textContent).trim();
  const say = (what, e) => found.push(`${what}: ${e.outerHTML.slice(0, 120)}`);
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than the window");
  for (const e of document.querySelectorAll("body *")) if (!e.closest(".scroll, .skip, .unseen") && visible(e)
    && e.getBoundingClientRect().right > innerWidth + 1) say("sticks out", e);
  for (const e of document.querySelectorAll("a, button, summary")) if (!name(e) && !e.querySelector("img[alt]")) say("has no name", e);
  for (const e of document.querySelectorAll("a[href^='#']")) if (!document.querySelector(e.getAttribute("href"))) say("leads nowhere", e);
  for (const e of document.querySelectorAll("img")) if (!e.alt) say("has no alternative text", e);
  for (const e of document.querySelectorAll("svg[role=img]")) if (!e.querySelector("title").textContent || !e.querySelector("desc").textContent) say("is not described", e);
  for (const e of document.querySelectorAll("table")) if (!e.caption?.textContent.trim()) say("has no caption", e);
  for (const e of document.querySelectorAll("th")) if (!e.scope) say("has no scope", e);
  for (const e of document.querySelectorAll("[aria-labelledby]")) for (const id of e.getAttribute("aria-labelledby").split(" "))
    if (!document.getElementById(id)) say("is labelled by nothing", e);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`two elements have the id ${id}`);
  for (const tag of ["header", "main", "h1", "title"]) if (document.querySelectorAll(`${tag}:not(svg *)`).length !== 1) found.push(`not one ${tag}`);
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) { const now = +e.tagName[1]; if (now > level + 1) say("skips a level", e); level = now; }
  for (const e of document.querySelectorAll("a[href], button, summary, [tabindex]")) {
    if (!visible(e)) continue;
    e.focus();
    if (document.activeElement !== e) say("takes no focus", e);
  }
  document.activeElement.blur();
  return found;
};

const contrasts = () => {
  const numbers = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, under) => [0, 1, 2].map((k) => top[3] * top[k] + (1 - top[3]) * under[k]);
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const paper = (e) => e ? over(numbers(getComputedStyle(e).backgroundColor), paper(e.parentElement)) : [255, 255, 255];
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement, style = getComputedStyle(e);
    if (!texts.currentNode.data.trim() || !e.checkVisibility() || e.closest("script, title, desc")) continue;
    const under = paper(e), ink = over(numbers(e.closest("svg") ? style.fill : style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 60)}`);
  }
  return found;
};

const overlaps = () => [...document.querySelectorAll(".chart")].flatMap((chart) => {
  const frame = chart.getBoundingClientRect(), labels = [...chart.querySelectorAll(".label")];
  const boxes = labels.map((label) => label.getBoundingClientRect()), found = [];
  boxes.forEach((a, k) => {
    if (a.left < frame.left || a.right > frame.right + 1) found.push(`${labels[k].textContent} sticks out`);
    boxes.slice(k + 1).forEach((b, n) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Boxes of text are higher than its letters.
      if (across > 0 && up > a.height / 4) found.push(`${labels[k].textContent} on ${labels[k + 1 + n].textContent}`);
    });
  });
  return found;
});
