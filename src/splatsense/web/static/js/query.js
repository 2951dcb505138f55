// What is searched for: words, pictures, files and assets of the library, each with a weight.
import { sendFile, thumbnail } from "./api.js";
import { byId, el } from "./dom.js";

export class SearchQuery {
  /** @param {() => void} changed  called after every change */
  constructor(changed) {
    this.changed = changed;
    this.words = "";
    this.wordsWeight = 1;
    this.parts = []; // {key, label, picture, weight}; key is {asset: id} or {query: id}
  }

  /** Whether there are parts to weigh against each other. Only then are weights shown, and only then do they count. */
  isMixed() {
    return this.parts.length + (this.words.trim() ? 1 : 0) > 1;
  }

  /** The parts as the API takes them. */
  toJson() {
    const parts = this.parts.map(({ key, weight }) => ({ ...key, weight }));
    if (this.words.trim()) parts.unshift({ text: this.words, weight: this.wordsWeight });
    return this.isMixed() ? parts : parts.map((part) => ({ ...part, weight: 1 }));
  }

  setWords(words) {
    if (words === this.words) return;
    this.words = words;
    this.show();
    this.changed();
  }

  addAsset(asset) {
    if (this.parts.some(({ key }) => key.asset === asset.id)) return;
    this.add({ key: { asset: asset.id }, label: asset.name, picture: thumbnail(asset), weight: 1 });
  }

  /** Search by a picture or a 3D file. Raises ApiError when the server cannot read it. */
  async addFile(file) {
    const dropped = await sendFile("POST", `queries?name=${encodeURIComponent(file.name)}`, file);
    this.add({ key: { query: dropped.id }, label: file.name, picture: `/api/queries/${dropped.id}/thumbnail`, weight: 1 });
  }

  add(part) {
    this.parts.push(part);
    this.show();
    this.changed();
  }

  remove(part) {
    this.parts = this.parts.filter((other) => other !== part);
    this.show();
    this.changed();
    byId("words").focus();
  }

  /** Show the parts; words are one of them only where there is something to weigh them against. */
  show() {
    const isMixed = this.isMixed();
    const words = isMixed && this.words.trim() && el("li", { class: "part" },
      el("span", { class: "label" }, `“${this.words.trim()}”`),
      this.slider("the words", this.wordsWeight, (weight) => { this.wordsWeight = weight; }));
    byId("parts").replaceChildren(...[words, ...this.parts.map((part) => this.row(part, isMixed))].filter(Boolean));
  }

  row(part, isMixed) {
    return el("li", { class: "part" },
      el("img", { src: part.picture, alt: "", width: 40, height: 40 }),
      el("span", { class: "label" }, part.label),
      isMixed && this.slider(part.label, part.weight, (weight) => { part.weight = weight; }),
      el("button", { type: "button", class: "icon", "aria-label": `Remove ${part.label}`, onclick: () => this.remove(part) }, "✕"));
  }

  slider(label, value, set) {
    const shown = el("output", {}, percent(value));
    const input = el("input", {
      type: "range", min: -1, max: 1, step: 0.1, value, "aria-label": `Weight of ${label}; below zero leads away from it`,
      oninput: () => {
        set(Number(input.value));
        shown.textContent = percent(Number(input.value));
        this.changed();
      },
    });
    return el("span", { class: "weight" }, input, shown);
  }
}

const percent = (weight) => `${Math.round(weight * 100)} %`;
