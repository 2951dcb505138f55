// The page: which of its three parts is shown, and what connects them.
import { Adding } from "./add.js";
import { get } from "./api.js";
import { AssetPage } from "./asset.js";
import { byId } from "./dom.js";
import { startDropping } from "./dropping.js";
import { MapPage } from "./map.js";
import { SearchPage } from "./search.js";
import { startTheme } from "./theme.js";

startTheme();
const pages = { search: new SearchPage(), asset: new AssetPage(), map: new MapPage() };
const adding = new Adding(() => pages.search.refresh(!byId("page-search").hidden));
let shown = "";

function show() {
  const [path, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, id] = path.split("/");
  const name = first === "asset" ? "asset" : first === "map" ? "map" : "search";
  const was = shown;
  shown = name;
  for (const page of Object.keys(pages)) byId(`page-${page}`).hidden = page !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  pages.asset.close();
  if (name === "search") pages.search.open(new URLSearchParams(parameters));
  else pages[name].open(id);
  if (was && name === "search") byId("words").focus({ preventScroll: true });
}

function goToSearch() {
  if (byId("page-search").hidden) {
    history.pushState({ parts: pages.search.query.parts }, "", "#/");
    show();
  }
  scrollTo(0, 0);
}

function similar(asset) {
  goToSearch();
  pages.search.query.addAsset(asset);
  byId("words").focus({ preventScroll: true });
}

async function searchByFile(file) {
  goToSearch();
  pages.search.say(`Reading ${file.name}…`);
  try {
    await pages.search.query.addFile(file);
  } catch (error) {
    pages.search.say(error.message, true);
  }
}

/** Go past the header, and past the search box where there are results; the address stays, as it says which page is shown. */
function skip(event) {
  event.preventDefault();
  const results = byId("results");
  (byId("page-search").hidden || results.childElementCount === 0 ? byId("main") : results).focus();
}

document.querySelector(".skip").addEventListener("click", skip);
byId("picture-button").addEventListener("click", () => byId("picture-file").click());
byId("picture-file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) searchByFile(file);
});
byId("words").addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (!file) return;
  event.preventDefault();
  searchByFile(file);
});
document.addEventListener("click", (event) => {
  if (byId("page-search").hidden || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("a")?.hash !== location.hash) return;
  history.replaceState(null, ""); // a link to the search that is shown starts anew as well, and no hashchange tells of it
  show();
});
document.addEventListener("similar", (event) => similar(event.detail));
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, textarea, dialog[open]")) return;
  event.preventDefault();
  goToSearch();
  byId("words").focus();
});
get("library").then(({ name }) => { byId("library-name").textContent = name; }, () => {});
startDropping({ search: searchByFile, add: (files) => adding.upload(files), similar });
addEventListener("hashchange", show);
show();
