// Small pieces of the page: elements out of values, never out of markup, so that a file's name cannot become code.

/** An element with properties (on… are listeners, aria-… and data-… attributes) and children. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A spot of a colour, for legends. */
export function dot(tint) {
  const mark = el("span", { class: "dot" });
  mark.style.backgroundColor = tint;
  return mark;
}

/** Says why there is nothing else to see, with a way back. */
export const notice = (message, isError = false) => el("div", { class: "notice" },
  el("p", { class: isError ? "status error" : "status", role: isError ? "alert" : "status" }, message),
  el("a", { class: "button quiet", href: "#/" }, "Back to the search"));

export const byId = (id) => document.getElementById(id);

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  while (size >= 1000 && unit < 3) { size /= 1000; unit += 1; }
  return `${size.toLocaleString("en", { maximumFractionDigits: unit ? 1 : 0 })} ${units[unit]}`;
}

/** A number with three significant digits. */
export const brief = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

/** The last call of a burst, `milliseconds` after it. */
export function debounced(milliseconds, action) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds, ...values);
  };
}
