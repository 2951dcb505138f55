// The page of one asset: live view, tags, facts, neighbours, statistics, downloads.
import { get, thumbnail } from "./api.js";
import { card } from "./card.js";
import { brief, byId, bytes, count, el, notice } from "./dom.js";
import { SceneTools } from "./scene.js";

export class AssetPage {
  constructor() {
    this.root = byId("page-asset");
    this.viewer = null;
  }

  async open(id) {
    this.close();
    const opened = this.opened = Symbol(id);
    this.root.replaceChildren(el("p", { class: "status", role: "status" }, "Loading…"));
    try {
      const [asset, library] = await Promise.all([get(`assets/${encodeURIComponent(id)}`), get("library")]);
      if (this.opened !== opened) return;
      document.title = `${asset.name} · SplatSense`;
      this.show(asset, library);
    } catch (error) {
      if (this.opened !== opened) return;
      this.root.replaceChildren(notice(error.message, true));
    }
  }

  close() {
    this.opened = null;
    this.scene?.close();
    this.scene = null;
    this.viewer?.close();
    this.viewer = null;
  }

  show(asset, library) {
    const stage = el("div", { class: "stage" });
    const note = el("p", { class: "stage-note", role: "status" }, "Loading the 3D view…");
    const tools = el("div", { class: "stage-tools" });
    const scene = el("section", { class: "scene", "aria-label": "Inside the scene", hidden: true });
    const neighbours = el("ul", { class: "grid", "aria-label": "Most similar" });
    const isDoubtful = asset.is_scene && asset.tags.length > 0;
    const shown = el("div", {}, el("h2", {}, "Tags"), tagList(asset.tags), isDoubtful && el("p", { class: "muted" },
      "These take it for one object. With so many Gaussians it may be a scene: Classes, under the view, say what is in it."));
    const statistics = el("div", { class: "statistics" }, el("p", { class: "muted" }, "Reading the file…"));
    this.root.replaceChildren(
      el("div", { class: "asset" },
        el("div", { class: "look" }, el("figure", { class: "viewer" }, stage, note, tools), scene),
        el("div", { class: "facts" },
          el("h1", { tabindex: -1 }, asset.name),
          el("p", { class: "muted path" }, asset.file),
          shown,
          actions(asset, library),
          el("h2", {}, "Facts"), factTable(asset))),
      el("section", { class: "below" }, el("h2", {}, "Most similar"), neighbours),
      el("section", { class: "below" }, el("h2", {}, "Statistics"), statistics));
    this.root.querySelector("h1").focus({ preventScroll: true });
    scrollTo(0, 0);
    this.view(asset, asset.is_scene, stage, note, tools).then((viewer) => {
      if (!viewer || !asset.is_scene) return;
      scene.hidden = false;
      this.scene = new SceneTools(scene, asset, viewer);
      this.scene.onClasses = (classes) => shown.replaceChildren(el("h2", {}, "What is in it"), classList(classes));
      this.scene.start();
    });
    fill(neighbours, get(`assets/${asset.id}/neighbours?limit=12`), (found) => found.map(card));
    fill(statistics, get(`assets/${asset.id}/statistics`), statisticsTable);
  }

  /** Start the viewer and give it; or say why there is none and show the picture. */
  async view(asset, isScene, stage, note, tools) {
    const opened = this.opened;
    const fall = (message) => {
      stage.replaceChildren(el("img", { src: thumbnail(asset), alt: `Picture of ${asset.name}`, width: 256, height: 256 }));
      tools.replaceChildren();
      note.textContent = message;
      note.hidden = false;
    };
    if (!document.createElement("canvas").getContext("webgl2")) {
      fall("This browser has no WebGL2, so there is only a picture. Turn on hardware acceleration, or use a current browser.");
      return null;
    }
    try {
      const { Viewer } = await import("./viewer.js");
      if (this.opened !== opened) return null;
      const viewer = this.viewer = new Viewer(stage, isScene);
      const turn = el("button", {
        type: "button", class: "quiet", "aria-pressed": "false",
        onclick: () => {
          const on = turn.getAttribute("aria-pressed") !== "true";
          turn.setAttribute("aria-pressed", String(on));
          viewer.turn(on);
        },
      }, "Turn");
      tools.replaceChildren(turn, el("button", { type: "button", class: "quiet", onclick: () => viewer.reset() }, "Reset"));
      viewer.onLost = () => {
        if (this.scene) this.scene.root.hidden = true;
        this.scene?.close();
        viewer.close();
        this.viewer = null;
        fall("The graphics processor gave the 3D view up. Load the page again to have it back.");
      };
      await viewer.load(`assets/${asset.id}/view.spz?v=${asset.version}`, asset.name);
      stage.dataset.loaded = "true";
      note.hidden = true;
      return this.opened === opened ? viewer : null;
    } catch (error) {
      if (this.opened !== opened || error.name === "AbortError") return null; // the page or the view has been left
      this.viewer?.close();
      this.viewer = null;
      fall(`There is no 3D view: ${error.message}`);
      return null;
    }
  }
}

async function fill(element, promise, children) {
  try {
    element.replaceChildren(...children(await promise));
  } catch (error) {
    element.replaceChildren(el(element.tagName === "UL" ? "li" : "p", { class: "error" }, error.message));
  }
}

const tagList = (tags) => el("ul", { class: "tags" }, tags.map(({ label, probability }) => el("li", {},
  el("a", { href: `#/?${new URLSearchParams({ tag: label })}` }, label),
  el("meter", { min: 0, max: 1, value: probability, "aria-label": `probability of ${label}` }),
  el("span", { class: "muted" }, `${Math.round(100 * probability)} %`))));

const classList = (classes) => el("ul", { class: "tags" }, classes.map(({ name, share }) => el("li", {},
  name, el("meter", { min: 0, max: 1, value: share, "aria-label": `share of ${name}` }),
  el("span", { class: "muted" }, `${(100 * share).toFixed(1)} %`))));

function actions(asset, library) {
  const format = el("select", { "aria-label": "Format of the download" },
    el("option", { value: "original" }, `as it is (${asset.file.split(".").at(-1)})`),
    library.formats.write.map((suffix) => el("option", { value: suffix }, suffix)));
  const download = el("a", { class: "button quiet", download: "", href: `/api/assets/${asset.id}/file?format=original` }, "Download");
  format.addEventListener("change", () => {
    download.href = `/api/assets/${asset.id}/file?format=${encodeURIComponent(format.value)}`;
  });
  const similar = el("button", {
    type: "button", class: "primary", onclick: () => document.dispatchEvent(new CustomEvent("similar", { detail: asset })),
  }, "Search by it");
  return el("div", { class: "actions" }, similar, el("span", { class: "row" }, format, download));
}

function factTable(asset) {
  const extent = asset.bounds && asset.bounds[1].map((high, axis) => brief(high - asset.bounds[0][axis])).join(" × ");
  return table([
    ["Gaussians", asset.gaussians.toLocaleString("en")],
    ["Extent", extent ?? ""],
    ...(asset.up ? [["Up", `${asset.up}, as was said when it was added`]] : []),
    ["File", bytes(asset.bytes)],
    ["Folder", asset.folder.split("/").flatMap((part, index) => (index ? ["/", el("wbr"), part] : [part]))],
    ["Added", new Date(1000 * asset.added).toLocaleString()],
  ]);
}

function statisticsTable(facts) {
  const names = Object.keys(facts.opacity);
  const quantiles = el("table", { class: "numbers" },
    el("thead", {}, el("tr", {}, el("td"), names.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ["opacity", "scale"].map((key) => el("tr", {},
      el("th", { scope: "row" }, key), names.map((name) => el("td", {}, brief(facts[key][name])))))));
  return [
    ...facts.warnings.map((warning) => el("p", { class: "warning" }, warning)),
    ...facts.notes.map((note) => el("p", { class: "muted" }, note)),
    el("p", { class: "muted" }, `${count(facts.gaussians, "Gaussian")}, spherical harmonics of degree ${facts.sh_degree}, ${bytes(facts.memory)} in memory`),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Quantiles of opacity and scale" }, quantiles),
  ];
}

const table = (rows) => el("table", { class: "facts-table" }, el("tbody", {}, rows.map(([name, value]) => el("tr", {},
  el("th", { scope: "row" }, name), el("td", {}, value)))));
