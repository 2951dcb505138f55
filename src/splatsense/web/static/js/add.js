// Adding assets: files and folders that are chosen or dropped, folders of this computer, and how far each run is.
import { get, post, remove, sendFile } from "./api.js";
import { byId, bytes, count, el } from "./dom.js";
import { isOver, watch } from "./jobs.js";
import { Turns } from "./turns.js";

const sending = new Turns(3); // files of all uploads together, so that connections are left for the rest of the page

export class Adding {
  /** @param {() => void} changed  called when the library has changed */
  constructor(changed) {
    this.changed = changed;
    const dialog = byId("add-dialog");
    for (const button of ["add-button", "welcome-button"]) byId(button).addEventListener("click", () => dialog.showModal());
    for (const [button, input] of [["choose-files", "upload-files"], ["choose-folder", "upload-folder"]]) {
      byId(button).addEventListener("click", () => byId(input).click());
      byId(input).addEventListener("change", (event) => {
        const files = [...event.target.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
        event.target.value = "";
        dialog.close();
        if (files.length) this.upload(files);
      });
    }
    byId("up").addEventListener("change", ({ target }) => {
      byId("drop-up").textContent = target.value && `up: ${target.selectedOptions[0].textContent}`;
    });
    byId("folder-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.indexFolder(byId("folder-path").value);
    });
    this.resume();
  }

  /** Show what runs already, such as after loading the page again. */
  async resume() {
    try {
      const [library, jobs] = await Promise.all([get("library"), get("jobs")]);
      this.library = library;
      byId("folder-form").hidden = !library.can_index_folders;
      for (const job of jobs.reverse()) if (job.kind === "indexing" && !isOver(job)) this.watch(job);
    } catch {
      // the page says on its own that the server does not answer
    }
  }

  async indexFolder(path) {
    byId("folder-error").textContent = "";
    try {
      const job = await post("jobs", { path, up: chosenUp() });
      byId("add-dialog").close();
      byId("folder-path").value = "";
      this.watch(job);
    } catch (error) {
      byId("folder-error").textContent = error.message;
    }
  }

  /** Send files, then index them. Files that no asset is made of are reported at once. */
  async upload(files) {
    const up = chosenUp();
    const { read, companions, archives } = this.library?.formats ?? { read: [], companions: [], archives: [] };
    const suffix = ({ path }) => `.${path.toLowerCase().split(".").at(-1)}`;
    const taken = files.filter((file) => [...read, ...companions].includes(suffix(file)) && !isHidden(file.path));
    const reason = (file) => (archives.includes(suffix(file))
      ? "is an archive; unpack it and drop what is in it" : `is no 3D asset; these are read: ${read.join(" ")}`);
    const refused = files.filter((file) => !taken.includes(file) && !isHidden(file.path))
      .map((file) => ({ file: file.path, reason: reason(file) }));
    const panel = new Panel(`Upload of ${count(files.length, "file")}`);
    const stop = new AbortController();
    panel.onCancel = () => stop.abort();
    if (!taken.some((file) => read.includes(suffix(file)))) {
      panel.end("Nothing to add", refused);
      return;
    }
    let id = null;
    try {
      ({ id } = await post("uploads", {}, stop.signal));
      const total = taken.reduce((sum, { file }) => sum + file.size, 0);
      let sent = 0, arrived = 0;
      for (const { file, path } of taken) {
        panel.progress(sent, total, `Sending ${path}, ${bytes(sent)} of ${bytes(total)}`, refused);
        await sending.take(stop.signal);
        try {
          await sendFile("PUT", `uploads/${id}/files?name=${encodeURIComponent(path)}`, file, stop.signal);
          arrived += 1;
        } catch (error) {
          if (error.name === "AbortError") throw error;
          refused.push({ file: path, reason: error.message });
        } finally {
          sending.give();
        }
        sent += file.size;
      }
      if (arrived === 0) {
        panel.end("Nothing was added", refused);
        abandon(id);
        return;
      }
      this.watch(await post(`uploads/${id}/index`, { up }), panel, refused);
    } catch (error) {
      panel.end(error.name === "AbortError" ? "Cancelled" : error.message, refused);
      abandon(id);
    }
  }

  /** Follow a job on the server until it is over. */
  watch(job, panel = new Panel(job.title), refused = []) {
    panel.onCancel = () => remove(`jobs/${job.id}`).catch((error) => panel.say(error.message));
    let indexed = 0;
    watch(job.id, (state) => {
      const failures = [...refused, ...(state.failures ?? [])];
      if (isOver(state)) {
        panel.end(ending(state), failures);
        this.changed();
        return;
      }
      panel.progress(state.done, state.total, running(state), failures);
      if (state.indexed >= indexed + 32) {
        indexed = state.indexed;
        this.changed();
      }
    });
  }
}

/** A card in the corner: title, progress, what failed, cancel or close. */
class Panel {
  constructor(title) {
    this.bar = el("progress", { max: 1, "aria-label": `Progress of ${title}` });
    this.text = el("p", { role: "status" }, "Starting…");
    this.failures = el("details", { hidden: true });
    this.button = el("button", { type: "button", class: "text", onclick: () => this.press() }, "Cancel");
    this.root = el("section", { class: "job", "aria-label": title },
      el("div", { class: "row" }, el("strong", {}, title), this.button), this.bar, this.text, this.failures);
    byId("jobs").append(this.root);
  }

  press() {
    if (this.isOver) {
      this.root.remove();
      return;
    }
    this.button.disabled = true;
    this.onCancel?.();
  }

  progress(done, total, text, failures = []) {
    if (total) this.bar.value = done / total;
    this.say(text);
    this.list(failures);
  }

  say(text) {
    if (this.text.textContent !== text) this.text.textContent = text;
  }

  end(text, failures = []) {
    this.isOver = true;
    this.bar.hidden = true;
    this.say(text);
    this.list(failures);
    this.failures.open = failures.length > 0;
    this.button.disabled = false;
    this.button.textContent = "Close";
  }

  list(failures) {
    if (this.shown === failures.length) return;
    this.shown = failures.length;
    this.failures.hidden = failures.length === 0;
    this.failures.replaceChildren(el("summary", {}, `${count(failures.length, "file")} could not be added`),
      el("ul", {}, failures.map(({ file, reason }) => el("li", {}, el("strong", {}, file), " ", reason))));
  }
}

/** The axis that was said to point up in what is added next; null where nothing was said. */
const chosenUp = () => byId("up").value || null;

/** Free the place of an upload that will not be indexed; the server does so too, later, should this fail. */
const abandon = (id) => { if (id) remove(`uploads/${id}`).catch(() => {}); };

const isHidden = (path) => path.split("/").some((part) => part.startsWith("."));

function running(state) {
  if (state.status === "waiting") return "Waiting for the runs before it…";
  if (state.status === "cancelling") return "Stopping after these files…";
  if (!state.total) return "Looking for files…";
  const left = state.rate > 0 ? `, ${Math.ceil((state.total - state.done) / state.rate)} s left` : "";
  return `${state.done} of ${count(state.total, "file")}${left}. ${state.current}`;
}

function ending(state) {
  if (state.status === "failed") return `Stopped: ${state.message}`;
  const parts = [state.indexed ? `${count(state.indexed, "asset")} added` : "nothing new"];
  if (state.skipped) parts.push(`${state.skipped} known already`);
  if (state.status === "cancelled") parts.unshift("cancelled");
  const text = parts.join(", ");
  return `${text[0].toUpperCase()}${text.slice(1)}. ${state.passed_over ?? ""}`.trim();
}
