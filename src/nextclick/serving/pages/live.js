"use strict";
// The running experiment, looked at every two seconds.

const at = (id) => document.getElementById(id);
const percent = (value, digits = 2) => (value === null ? "" : `${(100 * value).toFixed(digits)}%`);
const signed = (value) => (value === null ? "" : `${value >= 0 ? "+" : ""}${percent(value)}`);

function make(tag, attributes, ...children) {
  const drawn = ["svg", "line", "circle", "text", "title"].includes(tag);
  const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function table(title, rows, first) {
  const heads = [...(first ? [first] : []), "variant", "sessions", "lists", "clicked", "CTR", "uplift", "95% interval", "p"];
  const body = rows.map((row) => make("tr", {}, ...(first ? [make("td", {}, row.value)] : []),
    make("th", { scope: "row" }, row.variant),
    ...[row.sessions, row.lists, row.clicked].map((n) => make("td", {}, n.toLocaleString("en"))),
    make("td", {}, percent(row.ctr)), make("td", {}, signed(row.uplift)),
    make("td", {}, row.uplift_low === null || row.uplift === null ? "" : `${signed(row.uplift_low)} to ${signed(row.uplift_high)}`),
    make("td", {}, row.p === null ? "" : row.p < 0.001 ? "< 0.001" : row.p.toFixed(3))));
  return make("table", first ? { class: "parts" } : {}, make("caption", {}, title),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), make("tbody", {}, ...body));
}

function chart(rows) {
  const largest = Math.max(...rows.map((row) => Math.min(row.ctr_high, 3 * row.ctr + 0.001)), 0.001);
  const [left, right, width] = matchMedia("(max-width: 42rem)").matches ? [95, 290, 350] : [130, 570, 650];
  const x = (value) => left + (right - left) * Math.min(1, value / largest);
  const parts = rows.flatMap((row, n) => {
    const y = 24 + 34 * n;
    return [make("text", { x: 0, y: y + 5 }, row.variant.slice(0, Math.floor(left / 8))), make("line", { class: "axis", x1: left, x2: right, y1: y, y2: y }),
      make("line", { x1: x(row.ctr_low), x2: x(row.ctr_high), y1: y, y2: y }), make("circle", { cx: x(row.ctr), cy: y, r: 6 }),
      make("text", { x: right + 8, y: y + 5 }, percent(row.ctr))];
  });
  const said = rows.map((row) => `${row.variant} ${percent(row.ctr)}`).join(", ");
  return make("svg", { viewBox: `0 0 ${width} ${20 + 34 * rows.length}`, role: "img", "aria-label": `Click-through rates: ${said}` }, ...parts);
}

let shown = ""; // what is on the page already

function say(text) {
  if (at("said").textContent !== text) at("said").textContent = text; // else it would be read out again
}

function show(found) {
  const text = JSON.stringify(found);
  if (text === shown) return;
  shown = text;
  if (!found.running) {
    say("No experiment is running: start the service with --experiment FILE.");
    return;
  }
  at("name").textContent = `Experiment ${found.experiment}`;
  at("notes").replaceChildren(...found.notes.map((note) => make("p", { class: "warning" }, note)));
  if (!found.rows.length) { say("No list has been shown yet."); return; }
  const all = found.rows.filter((row) => row.by === "all");
  at("chart").replaceChildren(chart(all));
  at("all").replaceChildren(table("All sessions", all, null));
  const kinds = [...new Set(found.rows.map((row) => row.by))].filter((by) => by !== "all");
  const there = new Map([...at("by").children].map((holder) => [holder.dataset.by, holder])); // scrolled and focused
  kinds.forEach((by, n) => {
    const name = `By ${by}`;
    const holder = there.get(by) || make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name, "data-by": by });
    holder.replaceChildren(table(name, found.rows.filter((row) => row.by === by), by));
    if (at("by").children[n] !== holder) at("by").insertBefore(holder, at("by").children[n] || null);
  });
  while (at("by").children.length > kinds.length) at("by").lastChild.remove();
  const power = Object.entries(found.power).map(([name, value]) => {
    const days = found.days_more[name];
    return `${name}: an uplift of ${percent(found.effect)} would be found with a chance of ${percent(value, 0)}, days still needed for 80%: ${days === null ? "unknown" : days === 0 ? "none" : `about ${Math.ceil(days).toLocaleString("en")}`}`;
  });
  say([`Shares of sessions: p = ${found.mismatch_p.toFixed(3)}`, ...power].join(". "));
}

async function look() {
  try {
    const headers = {};
    const key = sessionStorage.getItem("nextclick-key");
    if (key) headers.Authorization = `Bearer ${key}`;
    const reply = await fetch("v1/experiment", { headers });
    const found = await reply.json();
    at("key-form").hidden = reply.status !== 401;
    if (!reply.ok) throw new Error(found.error);
    at("problem").hidden = true;
    show(found);
  } catch (error) {
    at("problem").hidden = false;
    if (at("problem").textContent !== error.message) at("problem").textContent = error.message;
  }
}

async function watch() {
  await look();
  setTimeout(watch, 2000);
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("nextclick-key", at("key").value.trim());
  look();
});

watch();
