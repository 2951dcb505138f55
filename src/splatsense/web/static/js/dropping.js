// Dropping on the page: a picture or a file to search by, files and folders to add, or a card onto the search box.
import { DRAGGED } from "./card.js";
import { byId } from "./dom.js";

/**
 * @param {(file: File) => void} search
 * @param {(files: {file: File, path: string}[]) => void} add
 * @param {(asset: object) => void} similar
 */
export function startDropping({ search, add, similar }) {
  const overlay = byId("drop");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // of the elements that the pointer entered and has not left

  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    overlay.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event) && (depth -= 1) <= 0) hide();
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    for (const target of overlay.children) target.classList.toggle("over", target.contains(event.target));
  });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    const toSearch = byId("drop-search").contains(event.target);
    const files = await droppedFiles(event.dataTransfer);
    hide();
    if (files.length === 0) return;
    if (toSearch) search(files[0].file);
    else add(files);
  });

  function hide() {
    depth = 0;
    overlay.hidden = true;
  }

  const form = byId("search-form");
  form.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes(DRAGGED)) event.preventDefault();
  });
  form.addEventListener("drop", (event) => {
    const asset = event.dataTransfer.getData(DRAGGED);
    if (!asset) return;
    event.preventDefault();
    similar(JSON.parse(asset));
  });
}

/** All files that were dropped, those in folders too, with their paths. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  const files = [];
  for (const entry of entries) {
    if (entry instanceof File) files.push({ file: entry, path: entry.name });
    else if (entry) await collect(entry, files);
  }
  return files;
}

async function collect(entry, files) {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    files.push({ file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }), path });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const children = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (children.length === 0) return;
    for (const child of children) await collect(child, files);
  }
}
