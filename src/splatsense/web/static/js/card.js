// One asset in a grid: its picture, name, likeliest tag and score. It can be dragged onto the search box.
import { thumbnail } from "./api.js";
import { byId, el } from "./dom.js";

export const DRAGGED = "application/x-splatsense-asset";

/** Fires "similar" on the document when more like it is asked for. */
export function card(asset) {
  const tag = asset.tags.length ? asset.tags[0].label + (asset.is_scene ? "?" : "") : "";
  const image = el("img", { src: thumbnail(asset), alt: "", width: 256, height: 256, loading: "lazy", decoding: "async", draggable: false });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "no-picture" }, "file is gone")), { once: true });
  const link = el("a", { href: `#/asset/${asset.id}`, class: "face" },
    el("span", { class: "picture" }, image),
    el("span", { class: "name" }, asset.name),
    el("span", { class: "about" },
      el("span", { class: "tag", title: asset.is_scene && "the tag of one object, but this may be a scene" }, tag),
      asset.score !== undefined && el("span", { class: "score", title: "cosine of the embeddings" },
        el("span", { class: "hidden" }, "score "), asset.score.toFixed(2).replace("-0.00", "0.00"))));
  const more = el("button", {
    type: "button", class: "similar", title: "More like this", "aria-label": `More like ${asset.name}`,
    onclick: () => document.dispatchEvent(new CustomEvent("similar", { detail: asset })),
  }, "≈");
  return el("li", {
    class: "card", draggable: true,
    ondragstart: (event) => {
      event.dataTransfer.setData(DRAGGED, JSON.stringify({ id: asset.id, name: asset.name, version: asset.version }));
      event.dataTransfer.effectAllowed = "copy";
      byId("search-form").classList.add("ready");
    },
    ondragend: () => byId("search-form").classList.remove("ready"),
  }, link, more);
}
