// The API as a page: what openapi.json says, operation by operation.
import { get } from "./api.js";
import { byId, el } from "./dom.js";

const described = await get("openapi.json");

/** A schema in a few words; objects with their properties, one a line. */
function words(schema, depth = 0) {
  if (schema.$ref) return words(described.components.schemas[schema.$ref.split("/").at(-1)], depth);
  if (schema.anyOf) return schema.anyOf.map((one) => words(one, depth)).filter((one) => one !== "null").join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (schema.type === "array") return `list of ${words(schema.items ?? {}, depth)}`;
  if (!schema.properties) return schema.type ?? "anything";
  const indent = "  ".repeat(depth + 1);
  const lines = Object.entries(schema.properties).map(([name, value]) =>
    `${indent}"${name}": ${words(value, depth + 1)}${value.description ? `, ${value.description}` : ""}`);
  return `{\n${lines.join("\n")}\n${"  ".repeat(depth)}}`;
}

function operation(path, method, { description, parameters = [], requestBody }) {
  const body = requestBody?.content["application/json"]?.schema;
  return el("section", { class: "operation" },
    el("h2", {}, el("span", { class: "method" }, method.toUpperCase()), " ", el("code", {}, path)),
    el("p", {}, description.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part))),
    parameters.length > 0 && el("ul", {}, parameters.map(({ name, in: place, schema, required }) => el("li", {},
      el("code", {}, name), ` in the ${place}: ${words(schema)}${required ? "" : `, by default ${JSON.stringify(schema.default)}`}`))),
    body && el("pre", {}, words(body)));
}

byId("operations").replaceChildren(...Object.entries(described.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, what]) => operation(path, method, what))));
