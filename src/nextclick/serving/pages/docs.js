"use strict";
// The API, from its OpenAPI description.

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function said(type, schemas) {
  if (type.$ref) return type.$ref.split("/").pop();
  if (type.anyOf) return type.anyOf.map((one) => said(one, schemas)).join(" or ");
  if (type.type === "array") return `list of ${said(type.items || {}, schemas)}`;
  return type.type || "anything";
}

function fields(name, schemas) {
  const schema = schemas[name];
  const rows = Object.entries(schema.properties || {}).map(([field, type]) => make("tr", {},
    make("th", { scope: "row" }, field), make("td", {}, said(type, schemas)),
    make("td", {}, (schema.required || []).includes(field) ? "required" : JSON.stringify(type.default ?? null))));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Fields of ${name}` }, make("table", { class: "words" }, make("caption", {}, name),
    make("thead", {}, make("tr", {}, ...["field", "type", "default"].map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows)));
}

async function start() {
  const api = await (await fetch("openapi.json")).json();
  const schemas = api.components.schemas;
  const parts = [make("p", { class: "muted" }, `${api.info.description} Errors are {"error": ..., "request": ...}.`)];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const body = route.requestBody && route.requestBody.content["application/json"].schema.$ref.split("/").pop();
      const json = route.responses["200"].content["application/json"];
      const good = json && json.schema.$ref;
      const codes = Object.entries(route.responses).map(([code, about]) => `${code} ${about.description}`).join(", ");
      parts.push(make("section", {}, make("h2", {}, `${method.toUpperCase()} ${path}`), make("p", {}, route.description || ""),
        ...(body ? [fields(body, schemas)] : []), ...(good ? [fields(good.split("/").pop(), schemas)] : []),
        make("p", { class: "hint" }, codes)));
    }
  }
  document.getElementById("routes").replaceChildren(...parts);
}

start().catch((error) => {
  document.getElementById("routes").replaceChildren(make("p", { class: "warning", role: "alert" }, `No description of the API: ${error.message}`));
});
