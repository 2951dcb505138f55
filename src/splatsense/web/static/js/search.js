// The search page: results while one types, filters, more results on demand.
import { get, post } from "./api.js";
import { card } from "./card.js";
import { byId, count, debounced, el } from "./dom.js";
import { Filters } from "./filters.js";
import { SearchQuery } from "./query.js";

const PAUSE = 70; // milliseconds without a key before a search
const LIMIT = 60;

export class SearchPage {
  constructor() {
    this.query = new SearchQuery(() => this.changed());
    this.filters = new Filters(byId("filters"), () => this.changed());
    this.running = null;
    this.later = debounced(PAUSE, () => this.search());
    byId("words").addEventListener("input", () => this.query.setWords(byId("words").value));
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    byId("more-button").addEventListener("click", () => this.search(byId("results").childElementCount));
    byId("words").addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") byId("results").querySelector("a")?.focus();
    });
    byId("results").addEventListener("keydown", moveInGrid);
  }

  /** Take words and filters from the address, other parts from the browser's history: a link has none. Show the page. */
  async open(parameters) {
    this.query.parts = history.state?.parts ?? [];
    this.query.words = parameters.get("q") ?? "";
    byId("words").value = this.query.words;
    this.filters.values = { tags: parameters.getAll("tag"), folder: parameters.get("folder") ?? "", size: parameters.get("size") ?? "" };
    this.query.show();
    await Promise.all([this.refresh(), this.search()]);
  }

  /** Load what the library holds again; search again too when it changed while the page was open. */
  async refresh(again = false) {
    try {
      this.library = await get("library");
    } catch (error) {
      this.say(error.message, true);
      return;
    }
    byId("library-name").textContent = this.library.name;
    if (!byId("page-search").hidden) document.title = `${this.library.name} · SplatSense`;
    this.filters.show(this.library);
    if (again) await this.search();
  }

  changed() {
    const parameters = new URLSearchParams();
    if (this.query.words.trim()) parameters.set("q", this.query.words.trim());
    for (const tag of this.filters.values.tags) parameters.append("tag", tag);
    for (const name of ["folder", "size"]) if (this.filters.values[name]) parameters.set(name, this.filters.values[name]);
    history.replaceState({ parts: this.query.parts }, "", parameters.size ? `#/?${parameters}` : "#/");
    if (byId("words").value !== this.query.words) byId("words").value = this.query.words;
    this.later();
  }

  async search(offset = 0) {
    this.running?.abort();
    const running = this.running = new AbortController();
    const list = byId("results");
    list.setAttribute("aria-busy", "true");
    try {
      const body = { parts: this.query.toJson(), ...this.filters.values, offset, limit: LIMIT };
      const found = await post("search", body, running.signal);
      const cards = found.results.map(card);
      if (offset) {
        list.append(...cards);
        cards[0]?.querySelector("a").focus();
      } else {
        list.replaceChildren(...cards);
      }
      byId("more-button").hidden = list.childElementCount >= found.matching || found.results.length === 0;
      const isEmpty = found.matching === 0 && !this.filters.isSet();
      byId("welcome").hidden = !isEmpty;
      byId("filters").hidden = isEmpty;
      this.say(isEmpty ? "This library is empty." : this.summary(list.childElementCount, found, body.parts));
    } catch (error) {
      if (error.name === "AbortError") return;
      list.replaceChildren();
      byId("more-button").hidden = true;
      this.say(error.message, true);
    } finally {
      if (this.running === running) list.removeAttribute("aria-busy");
    }
  }

  summary(shown, found, parts) {
    if (found.matching === 0) return "No asset has all of these properties.";
    const isRanked = parts.some(({ weight }) => weight !== 0);
    const what = isRanked ? `best first, ${Math.ceil(found.milliseconds)} ms` : "newest first";
    return shown < found.matching ? `${shown} of ${count(found.matching, "asset")}, ${what}` : `${count(shown, "asset")}, ${what}`;
  }

  say(message, isError = false) {
    byId("status").classList.toggle("alone", byId("results").childElementCount === 0);
    byId("status").replaceChildren(isError ? el("span", { class: "error" }, message) : message);
  }
}

/** Arrow keys go from card to card. */
function moveInGrid(event) {
  const links = [...event.currentTarget.querySelectorAll("a.face")];
  const at = links.indexOf(document.activeElement);
  if (at < 0) return;
  const top = links[0].getBoundingClientRect().top;
  const columns = links.findIndex((link) => link.getBoundingClientRect().top > top + 4);
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns < 0 ? links.length : columns, ArrowUp: columns < 0 ? -links.length : -columns };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = at + steps[event.key];
  if (next < 0) byId("words").focus();
  else links[Math.min(next, links.length - 1)].focus();
}
