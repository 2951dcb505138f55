// Filters by tag, folder and number of Gaussians, with how many assets each would leave.
import { el } from "./dom.js";

const SIZES = { small: "under 10 k", medium: "10 k to 100 k", large: "100 k to 1 M", huge: "1 M and more" };

export class Filters {
  /** @param {HTMLElement} root  @param {() => void} changed */
  constructor(root, changed) {
    this.root = root;
    this.changed = () => {
      this.reset.hidden = !this.isSet();
      changed();
    };
    this.values = { tags: [], folder: "", size: "" };
    document.addEventListener("click", (event) => {
      const menu = root.querySelector("details");
      if (menu?.open && !menu.contains(event.target)) menu.open = false;
    });
  }

  /** Show what the library holds; the choices stay. */
  show(library) {
    const open = this.root.querySelector("details")?.open ?? false;
    this.reset = el("button", { type: "button", class: "text", hidden: !this.isSet(), onclick: () => this.clear(library) }, "Clear filters");
    this.root.replaceChildren(
      this.tagChooser(library.tags, open),
      this.select("folder", "Any folder", Object.entries(library.folders).map(([folder, number]) => [folder, lastParts(folder), number])),
      this.select("size", "Any size", Object.entries(library.sizes).map(([size, number]) => [size, `${SIZES[size]} Gaussians`, number])),
      this.reset);
  }

  isSet() {
    return this.values.tags.length > 0 || this.values.folder !== "" || this.values.size !== "";
  }

  clear(library) {
    this.values = { tags: [], folder: "", size: "" };
    this.show(library);
    this.root.querySelector("summary").focus();
    this.changed();
  }

  tagChooser(tags, open) {
    const chosen = this.values.tags;
    const summary = el("summary", { class: chosen.length ? "set" : "" }, chosen.length ? chosen.join(", ") : "Any tag");
    const choices = Object.entries(tags).map(([tag, number]) => el("label", { class: "choice" },
      el("input", { type: "checkbox", value: tag, checked: chosen.includes(tag) }), el("span", {}, tag), el("small", {}, number)));
    const list = el("div", { class: "choices-list" }, choices.length ? choices : "No assets yet.");
    list.addEventListener("change", () => {
      this.values.tags = [...list.querySelectorAll("input:checked")].map((input) => input.value);
      summary.textContent = this.values.tags.join(", ") || "Any tag";
      summary.classList.toggle("set", this.values.tags.length > 0);
      this.changed();
    });
    const find = el("input", {
      type: "search", placeholder: "Find a tag", "aria-label": "Find a tag",
      oninput: () => {
        for (const choice of choices) choice.hidden = !choice.textContent.includes(find.value.toLowerCase());
      },
    });
    const details = el("details", { class: "chooser", open }, summary, el("div", { class: "menu" }, find, list));
    details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !details.open) return;
      details.open = false;
      summary.focus();
    });
    return details;
  }

  select(name, all, options) {
    const value = this.values[name];
    if (value && !options.some(([key]) => key === value)) options.push([value, lastParts(value), 0]);
    const box = el("select", { "aria-label": name === "folder" ? "Folder" : "Size", class: value ? "set" : "" },
      el("option", { value: "" }, all),
      options.map(([key, label, number]) => el("option", { value: key, selected: key === value, title: key }, `${label} (${number})`)));
    box.addEventListener("change", () => {
      this.values[name] = box.value;
      box.classList.toggle("set", box.value !== "");
      this.changed();
    });
    return box;
  }
}

const lastParts = (folder) => folder.split("/").slice(-2).join("/") || folder;
