"use strict";
// The shop: products to click, the lists of each model side by side, how they change, and why.

const K = 10;
const at = (id) => document.getElementById(id);
const known = new Map(); // items that were shown before, by id
const asked = new Map(); // requests for them, by id, null where none was needed
const state = { session: "", clicks: [], models: [], running: false, category: "", page: 0, pages: 1, lists: new Map(), turn: 0 };

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function ask(path, content) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem("nextclick-key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = content === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(content) };
  const reply = await fetch(path, options);
  const found = await reply.json();
  if (reply.status === 401) at("key-form").hidden = false;
  if (!reply.ok) throw new Error(found.error || `status ${reply.status}`);
  return found;
}

function complain(error) {
  at("problem").hidden = !error;
  at("problem").textContent = error ? error.message : "";
}

async function learn(ids) {
  const wanted = [...new Set(ids.map(String))];
  const missing = wanted.filter((id) => !asked.has(id));
  if (missing.length) {
    for (const id of missing) known.set(id, { id, title: id, image: "" });
    const request = told(missing).catch((error) => {
      for (const id of missing) asked.delete(id); // asked again by the next list that has them
      throw error;
    });
    for (const id of missing) asked.set(id, request);
  }
  await Promise.all(wanted.map((id) => asked.get(id))); // another list may be waiting for the same items
}

async function told(ids) {
  const found = await ask(`v1/catalogue?${ids.map((id) => `item=${encodeURIComponent(id)}`).join("&")}`);
  for (const item of found.items) known.set(String(item.id), item);
}

const titleOf = (id) => (known.get(String(id)) || { title: String(id) }).title;

function picture(item) {
  if (!item.image) return make("span", { class: "blank", "aria-hidden": "true" });
  return make("img", { src: item.image, alt: "", width: 64, height: 64, loading: "lazy" });
}

// -- products

async function showProducts() {
  const query = new URLSearchParams({ category: state.category, page: String(state.page) });
  const found = await ask(`v1/catalogue?${query}`);
  state.pages = Math.max(1, found.pages);
  if (at("category").options.length === 1) {
    for (const name of found.categories) at("category").append(make("option", { value: name }, name));
  }
  for (const item of found.items) {
    known.set(String(item.id), item);
    asked.set(String(item.id), null);
  }
  at("products").replaceChildren(...found.items.map((item) => make("li", {}, make("button",
    { type: "button", class: "product", "data-item": item.id, onclick: () => click(item.id, null) },
    picture(item), item.title, make("small", {}, priceOf(item))))));
  at("page").textContent = `page ${state.page + 1} of ${state.pages}`;
  at("before").disabled = state.page === 0;
  at("after").disabled = state.page + 1 >= state.pages;
  at("find").hidden = found.pages === 0;
}

const priceOf = (item) => (typeof item.price === "number" ? item.price.toFixed(2) : item.price || "");

// -- clicks and lists

async function click(item, request) {
  const event = { session: state.session, item, id: randomId(), event: request ? "list_click" : "view" };
  if (request) event.request = request;
  state.clicks.push(item);
  try {
    await ask("v1/events", event);
    complain(null);
  } catch (error) {
    complain(error); // lists are made from the items below all the same
  }
  await refresh();
}

async function refresh() {
  const turn = ++state.turn;
  await learn(state.clicks);
  at("session").replaceChildren(...state.clicks.map((item) => make("li", {}, titleOf(item))));
  at("no-session").hidden = state.clicks.length > 0;
  const changes = [];
  await Promise.all([...state.lists.values()].map(async (list) => {
    const start = performance.now();
    const question = { session: state.session, items: state.clicks, k: K, exclude_seen: true };
    if (list.model) question.model = list.model;
    try {
      const answer = await ask("v1/recommend", question);
      const took = performance.now() - start;
      await learn(answer.items.map((entry) => entry.item));
      if (turn !== state.turn) return; // a later click has been answered already
      changes.push(showList(list, answer, took));
      if (list.details.open) await showWhy(list);
    } catch (error) {
      complain(error);
    }
  }));
  if (turn === state.turn) at("said").textContent = changes.join(". ");
}

function showList(list, answer, took) {
  const before = new Map(list.items.map((item, place) => [item, place]));
  const items = answer.items.map((entry) => entry.item);
  let fresh = 0;
  const held = [...list.rows.children].findIndex((row) => row.contains(document.activeElement));
  list.rows.replaceChildren(...items.map((item, place) => {
    const was = before.get(item);
    let move = ["", "as before"];
    if (was === undefined) { move = ["new", "new"]; fresh += 1; }
    else if (was > place) move = [`\u2191 ${was - place}`, `up ${was - place}`];
    else if (was < place) move = [`\u2193 ${place - was}`, `down ${place - was}`];
    const about = known.get(String(item)) || { title: String(item) };
    return make("li", {}, make("button",
      { type: "button", class: "row", "data-item": item, onclick: () => click(item, list.model ? null : answer.request) },
      make("span", { class: "muted" }, String(place + 1)), picture(about),
      make("span", {}, about.title, make("br"), make("small", {}, `score ${Number(entryScore(answer, place)).toLocaleString("en", { maximumSignificantDigits: 3 })}`)),
      make("span", { class: was === undefined ? "move new" : "move" }, make("span", { "aria-hidden": "true" }, move[0]),
        make("span", { class: "unseen" }, move[1]))));
  }));
  if (held >= 0 && items.length) list.rows.children[Math.min(held, items.length - 1)].firstChild.focus({ preventScroll: true });
  list.items = items;
  const marks = answer.marks.length ? ` \u00b7 ${answer.marks.join(", ")}` : "";
  const variant = answer.variant ? `variant ${answer.variant} \u00b7 ` : "";
  list.about.textContent = `${variant}${took.toFixed(0)} ms \u00b7 version ${answer.version}${marks}`;
  return `${list.title}: ${fresh} new of ${items.length}`;
}

const entryScore = (answer, place) => answer.items[place].score;

// -- why

async function showWhy(list) {
  if (!state.clicks.length) {
    list.why.replaceChildren(make("p", { class: "muted" }, "Click a product first."));
    return;
  }
  try {
    const told = await ask("v1/explain", { session: state.session, items: state.clicks.slice(-50), k: 3, model: list.model });
    const sessions = (told.neighbours || []).slice(0, 5).flatMap((one) => one.clicks);
    await learn([...told.session, ...told.items.map((entry) => entry.item), ...sessions]);
    list.why.replaceChildren(...reasons(told), ...told.notes.map((note) => make("p", { class: "hint" }, note)));
  } catch (error) {
    list.why.replaceChildren(make("p", { class: "muted" }, error.message));
  }
}

function reasons(told) {
  if (told.by === "attention") {
    const weights = told.weights[told.weights.length - 1];
    return [make("h3", {}, "How much each click is looked at"), bars(told.session.map(titleOf), weights)];
  }
  if (told.by === "neighbours") {
    const some = told.neighbours.slice(0, 5);
    const rows = some.map((one) => one.clicks.map((item) => (one.shared.includes(item) ? `[${titleOf(item)}]` : titleOf(item))).join(", "));
    return [make("h3", {}, `The most similar of ${told.neighbours.length} sessions that vote; in brackets: shared with yours`),
      bars(rows, some.map((one) => one.similarity))];
  }
  const first = told.items[0];
  if (told.by === "clicks") {
    return [make("h3", {}, `What each click adds to ${titleOf(first.item)}`), bars(told.session.map(titleOf), told.parts[0])];
  }
  const without = told.ranks_without[0].map((rank) => (rank === null ? "never listed" : `rank ${rank}`));
  return [make("h3", {}, `${titleOf(first.item)}, if one click is left out`),
    make("ul", {}, ...told.session.map((item, n) => make("li", {}, `without ${titleOf(item)}: ${without[n]}`)))];
}

function bars(names, values) {
  const largest = Math.max(...values.map(Math.abs), 1e-12);
  return make("dl", { class: "why" }, ...names.flatMap((name, n) => [make("dt", {}, name),
    make("dd", {}, make("meter", { min: 0, max: 1, value: Math.abs(values[n]) / largest, "aria-hidden": "true" })),
    make("dd", {}, values[n].toPrecision(2))]));
}

// -- start

function column(title, model) {
  const list = { title, model, items: [], rows: make("ol", {}), about: make("p", { class: "muted" }), why: make("div", {}) };
  list.details = make("details", {}, make("summary", {}, "Why?"), list.why);
  list.details.addEventListener("toggle", () => { if (list.details.open) showWhy(list); });
  const parts = [make("h3", {}, title), list.about, list.rows];
  if (model) parts.push(list.details);
  at("columns").append(make("section", { class: "list", "aria-label": title, "data-list": title }, ...parts));
  state.lists.set(title, list);
}

function restart() {
  state.session = `web-${randomId()}`;
  state.clicks = [];
  for (const list of state.lists.values()) list.items = [];
  return refresh();
}

async function start() {
  complain(null);
  const found = await ask("v1/models");
  state.lists.clear();
  at("columns").replaceChildren();
  if (found.experiment) column(`For you (experiment ${found.experiment})`, null);
  const wanted = new URLSearchParams(location.search).get("models"); // as /?models=narm,vs-knn
  const served = Object.keys(found.models);
  const chosen = (wanted || "").split(",").filter((name) => served.includes(name));
  for (const name of (chosen.length ? chosen : served).slice(0, 3)) column(name, name);
  await showProducts();
  await restart();
}

at("restart").addEventListener("click", restart);
at("before").addEventListener("click", () => { state.page -= 1; showProducts().catch(complain); });
at("after").addEventListener("click", () => { state.page += 1; showProducts().catch(complain); });
at("category").addEventListener("change", (event) => { state.category = event.target.value; state.page = 0; showProducts().catch(complain); });
at("find").addEventListener("submit", (event) => event.preventDefault());
at("type-item").addEventListener("submit", (event) => {
  event.preventDefault();
  const item = at("item").value.trim();
  if (item) click(item, null);
  at("item").value = "";
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("nextclick-key", at("key").value.trim());
  at("key-form").hidden = true;
  start().catch(complain);
});
start().catch(complain);
