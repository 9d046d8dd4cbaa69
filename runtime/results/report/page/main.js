/** The page: what is chosen, and who is told when that changes. */

import { drawMap, drawRamp, fitted } from "./colour.js";
import { byResidual, gridOf, judgedGridOf, lastPart, readColours, readContent, readLot } from "./data.js";
import { fieldOf, placeOf } from "./contours.js";
import { byId, make, oncePerFrame, say } from "./dom.js";
import { showFacts, showWarnings, when } from "./facts.js";
import { marksCsv, marksJson, save } from "./files.js";
import { Grid } from "./grid.js";
import { Histogram } from "./histogram.js";
import { countVerdicts, FARTHEST, judgedWord, limitsOf, pixelLimit, VERDICTS, verdictOf, withReject, withReview, WORDS } from "./judge.js";
import { keepLimits, keptLimits, Marks } from "./marks.js";
import { layOut } from "./paper.js";
import { filtersOf, foldersOf, ordered, selected } from "./select.js";
import { addressOf, counted, distance, shownName } from "./text.js";
import { regionsIn, View } from "./view.js";

/** @typedef {import("./data.js").Lot} Lot */
/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Limits} Limits */
/** @typedef {import("./judge.js").Verdict} Verdict */

const CARD_POINTS = 128; // longer side of a card's heatmap

class Page {
  constructor() {
    const content = readContent();
    this.version = content.version;
    this.colourMaps = readColours(content);
    this.colours = Object.keys(this.colourMaps)[0];
    this.marks = new Marks(content);
    this.lots = content.lots.map(readLot);
    /** @type {Limits[]} */
    this.allLimits = this.lots.map(keptLimits);
    this.limitsBefore = this.allLimits[0]; // they were moved, for Escape
    this.number = 0;
    /** @type {Verdict[]} */
    this.verdicts = [];
    /** @type {Row[]} */
    this.chosen = [];
    /** @type {{key: string, rows: Row[]}} */
    this.order = { key: "", rows: [] };
    /** @type {import("./select.js").Choice} */
    this.choice = { text: "", verdicts: new Set(), folder: null, marked: "", sort: "worst" };
    this.limitsKept = true;
    this.cameFromPage = false; // to the large view: the browser's history goes back from it
    this.grid = new Grid(byId("images", HTMLUListElement), {
      verdict: (row) => this.verdicts[row.index],
      mark: (row) => this.marks.get(row.entry.name).mark,
      remark: (row) => this.marks.get(row.entry.name).remark,
      address: (row) => address(row),
      heat: (row) => this.#heat(row),
      word: (row, verdict) => wordOf(row, verdict, this.marks.get(row.entry.name).mark),
      judgedWord: () => judgedWord(this.lot),
    });
    this.histogram = new Histogram(byId("histogram", HTMLElement), {
      reject: (value) => this.setLimits(withReject(this.limits, value)),
      review: (value) => this.setLimits(withReview(this.limits, value)),
      began: () => {
        this.limitsBefore = this.limits;
      },
      undone: () => this.setLimits(this.limitsBefore),
    });
    this.view = new View(byId("view", HTMLDialogElement), {
      judgedBy: () => this.lot.judgedBy,
      verdict: (row) => this.verdicts[row.index],
      word: wordOf,
      limits: () => this.limits,
      copies: (row) => (this.lot.part.copies ?? []).filter(({ images }) => images.includes(row.entry.name)).flatMap(({ images }) => images.filter((name) => name !== row.entry.name)),
      pixelLimit: () => pixelLimit(this.lot, this.limits),
      judgedGrid: (row) => judgedGridOf(row, this.lot),
      leveled: () => this.lot.part.level !== undefined,
      colours: () => ({ scale: this.lot.part.scale, colours: this.colourMaps[this.colours] }),
      scored: () => this.lot.rows.filter((row) => row.scored).length,
      marks: this.marks,
      marked: (row, change) => this.#marked(row, change),
      go: (step) => this.#go(step),
      closed: () => this.#closed(),
    });
    this.judgeSoon = oncePerFrame(() => this.#judge());
  }

  get lot() {
    return this.lots[this.number];
  }

  get limits() {
    return this.allLimits[this.number];
  }

  start() {
    this.#connect();
    this.#theme();
    this.open(0);
    this.#toHash();
    if (matchMedia("print").matches) void this.#layOut();
  }

  /**
   * Show a lot of several.
   * @param {number} number
   */
  open(number) {
    this.number = number;
    byId("group", HTMLSelectElement).value = String(number);
    const { lot } = this;
    const title = this.lots.length > 1 ? `${lot.label} of ${lastPart(lot.part.lot)}` : lot.label;
    byId("title", HTMLElement).textContent = title;
    document.title = `${title} – musc-edge report`;
    byId("subtitle", HTMLElement).textContent = subtitle(lot);
    const seconds = Object.values(lot.part.timings_s ?? {}).reduce((sum, each) => sum + each, 0);
    byId("origins-link", HTMLElement).textContent = seconds ? `scored ${when(lot.part.time ?? "")} in ${seconds.toFixed(1)} s`.replace("  ", " ") : "how the scores came about";
    showWarnings(byId("warnings", HTMLElement), lot);
    showFacts(byId("facts", HTMLElement), lot, this.version);
    const folders = foldersOf(lot.rows);
    byId("folder-choice", HTMLElement).hidden = folders.length < 2;
    this.choice.folder = null;
    byId("folder", HTMLSelectElement).replaceChildren(make("option", { value: "" }, "all folders"), ...folders.map((name, i) => make("option", { value: String(i + 1) }, shownName(name) || "in no folder")));
    this.folders = folders;
    const [own, asked] = [this.limits, limitsOf(lot)];
    this.histogram.open(lot.rows.filter((row) => row.scored), [own.reject, own.review, asked.reject, asked.review]);
    byId("scores-title", HTMLElement).textContent = lot.judgedBy === "score" ? "Scores" : "Raw scores";
    this.#kept();
    this.#ramp();
    this.#judge();
    this.grid.redraw();
  }

  /** @param {Limits} limits */
  setLimits(limits) {
    byId("limit-wrong", HTMLElement).hidden = true;
    const of = limitsOf(this.lot);
    this.allLimits[this.number] = limits.reject === of.reject && limits.review === of.review ? of : limits;
    this.limitsKept = keepLimits(this.lot, this.limits);
    this.judgeSoon();
  }

  /** Judge all images, and show what follows. */
  #judge() {
    const { lot, limits } = this;
    this.verdicts = lot.rows.map((row) => verdictOf(row, limits, this.marks.get(row.entry.name).mark));
    const counts = countVerdicts(this.verdicts);
    this.#counts(counts);
    const scored = lot.rows.length - (counts.get("not scored") ?? 0);
    const rejected = `${counts.get("reject")} of ${scored} rejected`;
    const looked = `${counts.get("review")} of ${scored} to review`;
    this.histogram.show(this.verdicts, limits, { reject: rejected, review: looked });
    this.#meaning(rejected);
    this.#kept();
    this.#choose();
    this.grid.refresh();
    this.view.refresh();
    if (limits.moved) say(rejected);
  }

  /** @param {Map<Verdict, number>} counts */
  #counts(counts) {
    const place = byId("counts", HTMLElement);
    for (const verdict of VERDICTS) {
      const name = verdict || "unjudged";
      /** @type {HTMLElement} */
      const own = place.querySelector(`[data-name="${name}"]`) ?? this.#counter(place, verdict, name);
      const count = counts.get(verdict) ?? 0;
      own.hidden = !count && !this.#isUsed(verdict);
      own.setAttribute("aria-pressed", String(this.choice.verdicts.has(verdict)));
      const number = own.querySelector(".number-of");
      if (number) number.textContent = count.toLocaleString("en");
    }
  }

  /**
   * Whether a verdict is possible with the limits that are set.
   * @param {Verdict} verdict
   */
  #isUsed(verdict) {
    const { limits, lot } = this;
    if (verdict === "review") return limits.review !== null;
    return (verdict === "reject" || verdict === "not flagged") && (lot.part.verdicts != null || limits.reject !== null);
  }

  /**
   * @param {HTMLElement} place
   * @param {Verdict} verdict
   * @param {string} name
   */
  #counter(place, verdict, name) {
    const own = make("button", { type: "button", class: "count", "data-name": name, "data-verdict": verdict }, make("span", { class: "verdict" }, WORDS[verdict]), make("span", { class: "number-of" }));
    own.addEventListener("click", () => {
      const { verdicts } = this.choice;
      if (!verdicts.delete(verdict)) verdicts.add(verdict);
      own.setAttribute("aria-pressed", String(verdicts.has(verdict)));
      this.#choose();
    });
    place.append(own);
    return own;
  }

  /** @param {string} rejected */
  #meaning(rejected) {
    const { limits, lot } = this;
    const asked = lot.part.verdicts;
    const marked = this.marks.sizes.marks;
    const own = marked ? `, and as you marked ${counted(marked, "image")}` : "";
    const sentence = limits.reject === null ? (asked ? "No limit rejects an image." : "No limit is set.") : `${rejected}: those with a ${judgedWord(lot)} of ${distance(limits.reject, 4)} or more${own}.`;
    const where = limits.moved
      ? `These limits are yours: save them with the marks to use them on the results.${limits.reject === null && limits.review !== null ? " A limit for review is taken over only together with one for rejects." : ""}`
      : asked
        ? shownName([marked && "Of the verdicts without your marks:", asked.refused && `${asked.refused}.`, asked.promise, ...(asked.notes ?? [])].filter(Boolean).join(" "))
        : "No verdicts were asked for. Move the line, or type a limit, to see what it would reject.";
    byId("meaning", HTMLElement).replaceChildren(make("strong", {}, sentence), ` ${where}`);
    for (const [id, limit] of /** @type {const} */ ([["limit", limits.reject], ["review-limit", limits.review]])) {
      const field = byId(id, HTMLInputElement);
      if (document.activeElement !== field) field.value = limit === null ? "" : distance(limit, 4);
    }
    byId("reset", HTMLElement).classList.toggle("absent", !limits.moved);
  }

  /** All images of the lot in the order that is wanted; sorted anew only if that changes. */
  #ordered() {
    const { sort } = this.choice;
    const limits = sort === "limit" ? [this.limits.reject, this.limits.review].filter((limit) => limit !== null) : [];
    const key = `${this.number} ${sort} ${limits.join(" ")}`;
    if (this.order.key !== key) this.order = { key, rows: ordered(this.lot.rows, sort, limits) };
    return this.order.rows;
  }

  /** Choose the images that are shown. */
  #choose() {
    const before = this.chosen;
    this.chosen = selected(this.#ordered(), this.verdicts, (row) => this.marks.get(row.entry.name).mark, this.choice);
    const same = before.length === this.chosen.length && before.every((row, i) => row === this.chosen[i]);
    if (!same) this.grid.show(this.chosen);
    const all = this.lot.rows.length;
    const text = this.chosen.length === all ? all.toLocaleString("en") : `${this.chosen.length.toLocaleString("en")} of ${all.toLocaleString("en")}`;
    byId("shown-count", HTMLElement).textContent = text;
    byId("clear", HTMLElement).hidden = !filtersOf(this.choice).length;
    this.#nothing();
    if (!same && before.length) say(`${text} images shown`);
  }

  /** Say why no image is shown, and offer those that the filters hide. */
  #nothing() {
    const place = byId("nothing", HTMLElement);
    place.hidden = this.chosen.length > 0;
    if (!place.hidden) {
      const { text } = this.choice;
      const found = this.lot.rows.filter((row) => row.search.includes(text.trim().toLowerCase())).length;
      const filters = filtersOf({ ...this.choice, text: "" }).join(", ");
      const called = text.trim() ? " with such a name" : "";
      const said = place.firstElementChild;
      if (said) said.textContent = found ? `${counted(found, "image")}${called}, hidden by the filters: ${filters}.` : `No image of this lot has “${text.trim()}” in its name.`;
      byId("show-hidden", HTMLElement).hidden = !found;
    }
  }

  /**
   * Take the filters away.
   * @param {Partial<import("./select.js").Choice>} rest what stays of them
   */
  #clear(rest = {}) {
    const { sort } = this.choice;
    this.choice = { text: "", verdicts: new Set(), folder: null, marked: "", ...rest, sort };
    byId("search", HTMLInputElement).value = this.choice.text;
    byId("folder", HTMLSelectElement).value = "";
    byId("marked", HTMLSelectElement).value = "";
    this.#judge();
  }

  /** @param {Row} row */
  #heat(row) {
    const grid = gridOf(row);
    if (!grid) return null;
    const { width, height } = fitted(row.width, row.height, CARD_POINTS);
    const canvas = make("canvas", { class: "tile heat", width: String(width), height: String(height) });
    drawMap(canvas, grid, this.lot.part.scale, this.colourMaps[this.colours], !row.entry.picture);
    return canvas;
  }

  #ramp() {
    const { low, high } = this.lot.part.scale;
    const ramp = byId("ramp", HTMLCanvasElement);
    drawRamp(ramp, this.colourMaps[this.colours]);
    const text = `${distance(low, 2)} usual for this lot, to ${distance(high, 2)}`;
    ramp.setAttribute("aria-label", `Scale of the heatmaps, as distances: ${text}`);
    byId("ramp-text", HTMLElement).replaceChildren(make("span", {}, `${distance(low, 2)} usual`), make("span", {}, distance(high, 2)));
  }

  /**
   * @param {Row} row
   * @param {{mark?: string, remark?: string}} change
   */
  #marked(row, change) {
    this.marks.set(row.entry.name, change);
    this.#kept();
    if (change.mark !== undefined) {
      this.#judge();
      say(change.mark ? `marked ${change.mark}` : "mark taken back");
    } else this.grid.refresh();
  }

  #kept() {
    const { marks, remarks } = this.marks.sizes;
    const kept = this.marks.kept && this.limitsKept;
    const what = [marks && counted(marks, "mark"), remarks && counted(remarks, "remark"), this.limits.moved && "my limits"].filter(Boolean).join(", ");
    byId("saving", HTMLElement).textContent = !what ? "Save marks" : this.#file() === this.marks.saved ? `Saved: ${what}` : `Save ${what}`;
    document.body.classList.toggle("not-kept", !kept);
    byId("not-kept", HTMLElement).hidden = kept;
  }

  // ---- the large view -----------------------------------------------------------------------

  #toHash() {
    const wanted = location.hash;
    for (const [number, lot] of this.lots.entries()) {
      const row = wanted.startsWith("#image=") ? lot.rows.find((each) => address(each) === wanted) : undefined;
      if (!row) continue;
      if (number !== this.number) this.open(number);
      this.#open(row);
      return;
    }
    if (this.view.isOpen) this.view.close();
  }

  /** @param {Row} row */
  #open(row) {
    const place = this.chosen.indexOf(row);
    this.view.open(row, place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${this.chosen.length.toLocaleString("en")}`);
  }

  /** @param {number} step */
  #go(step) {
    const { row } = this.view;
    if (!row) return;
    const list = this.chosen.includes(row) ? this.chosen : this.lot.rows;
    const next = list[list.indexOf(row) + step];
    if (!next) return;
    history.replaceState(history.state, "", address(next));
    this.#open(next);
    say(`${next.shown}, ${wordOf(next, this.verdicts[next.index], this.marks.get(next.entry.name).mark)}`);
  }

  #closed() {
    const at = this.chosen.findIndex((each) => address(each) === location.hash);
    if (this.cameFromPage && location.hash.startsWith("#image=")) history.back();
    else if (location.hash) history.replaceState(history.state, "", location.pathname + location.search);
    this.cameFromPage = false;
    if (at >= 0) this.grid.focus(at);
  }

  // ---- what a person does -------------------------------------------------------------------

  #connect() {
    addEventListener("hashchange", () => this.#toHash());
    byId("images", HTMLElement).addEventListener("click", (event) => {
      if (event.target instanceof Element && event.target.closest("a")) this.cameFromPage = true;
    });
    byId("view", HTMLElement).addEventListener("click", (event) => {
      const link = event.target instanceof Element && event.target.closest('a[href^="#image="]');
      if (!link) return;
      event.preventDefault();
      location.replace(link.getAttribute("href") ?? ""); // closing goes one step back, to the page
    });
    const group = byId("group", HTMLSelectElement);
    group.append(...this.lots.map((lot, i) => make("option", { value: String(i) }, lot.label)));
    byId("group-choice", HTMLElement).hidden = this.lots.length < 2;
    on("group", HTMLSelectElement, "change", (field) => this.open(Number(field.value)));
    for (const [link, section] of [["help", "facts-help"], ["origins-link", "facts-origins"]]) {
      on(link, HTMLAnchorElement, "click", () => byId(section, HTMLElement).setAttribute("open", ""));
    }
    byId("search", HTMLElement).addEventListener("keydown", ({ key }) => {
      if (key !== "Enter" || this.chosen.length !== 1) return;
      this.cameFromPage = true;
      location.hash = address(this.chosen[0]);
    });
    on("search", HTMLInputElement, "input", (field) => this.#set({ text: field.value }));
    on("folder", HTMLSelectElement, "change", (field) => this.#set({ folder: field.value ? (this.folders ?? [])[Number(field.value) - 1] : null }));
    on("marked", HTMLSelectElement, "change", (field) => this.#set({ marked: field.value }));
    on("sort", HTMLSelectElement, "change", (field) => this.#set({ sort: field.value }));
    on("limit", HTMLInputElement, "change", (field) => this.#typed(field, withReject));
    on("review-limit", HTMLInputElement, "change", (field) => this.#typed(field, withReview));
    on("clear", HTMLButtonElement, "click", () => this.#clear());
    on("show-hidden", HTMLButtonElement, "click", () => this.#clear({ text: this.choice.text }));
    on("reset", HTMLButtonElement, "click", () => this.setLimits(limitsOf(this.lot)));
    on("heat", HTMLButtonElement, "click", () => this.#heatForAll(!this.grid.heatForAll));
    on("save-json", HTMLButtonElement, "click", () => this.#save());
    on("save-csv", HTMLButtonElement, "click", () => save(`${fileName(this.lot)}-marks.csv`, marksCsv(this.marks), "text/csv"));
    on("print", HTMLButtonElement, "click", () => void this.#layOut().then(() => print()));
    addEventListener("beforeprint", () => void this.#layOut());
    const printing = matchMedia("print");
    printing.addEventListener("change", () => printing.matches && void this.#layOut());
    byId("colours", HTMLSelectElement).append(...Object.keys(this.colourMaps).map((name) => make("option", {}, name)));
    on("colours", HTMLSelectElement, "change", (field) => this.#recolour(field.value));
    addEventListener("resize", () => {
      this.histogram.resized();
      this.judgeSoon();
    });
    document.addEventListener("keydown", (event) => this.#key(event));
    if (matchMedia("(hover: none)").matches) this.#heatForAll(true);
    this.#kept();
  }

  /** @param {Partial<import("./select.js").Choice>} change */
  #set(change) {
    Object.assign(this.choice, change);
    this.#choose();
  }

  /**
   * @param {HTMLInputElement} field
   * @param {typeof withReject} moved
   */
  #typed(field, moved) {
    const text = field.value.trim().replace(",", ".");
    const value = text === "" ? null : Number(text);
    const wrong = value !== null && !(value >= 0 && value <= FARTHEST);
    const highest = this.lot.rows.reduce((most, row) => Math.max(most, row.scored ? row.value : 0), 0);
    const high = value !== null && !wrong && value > highest;
    field.setAttribute("aria-invalid", String(wrong));
    if (!wrong) this.setLimits(moved(this.limits, value));
    const said = byId("limit-wrong", HTMLElement);
    said.hidden = !wrong && !high;
    said.textContent = wrong ? `“${field.value.trim()}” is no limit: give a distance from 0 to ${FARTHEST}, such as 0.6, or nothing for no limit.` : `No image has as much: the highest ${judgedWord(this.lot)} is ${distance(highest, 4)}.`;
  }

  /** @param {boolean} all */
  #heatForAll(all) {
    this.grid.setHeat(all);
    byId("heat", HTMLElement).setAttribute("aria-pressed", String(all));
  }

  /** @param {string} name */
  #recolour(name) {
    this.colours = name;
    this.#ramp();
    this.grid.redraw();
    this.view.refresh();
  }

  /** The file for the results. */
  #file() {
    // A limit is one lot's; of several groups it is that of the one that is open, which the marks do not tell.
    const one = this.lots.length === 1;
    return marksJson(this.lot, this.marks, one ? this.limits : { reject: null, review: null });
  }

  #save() {
    const one = this.lots.length === 1;
    const name = `${fileName(this.lot)}-marks.json`;
    const text = this.#file();
    save(name, text, "application/json");
    this.marks.noteSaved(text);
    this.#kept();
    const command = `musc-edge verdict OUT --marks ${name}${one && this.limits.moved && this.limits.reject !== null ? " --threshold-of-marks" : ""}`;
    const place = byId("saved", HTMLElement);
    place.hidden = false;
    place.replaceChildren(`Saved as ${name}. To take it over into the results, OUT being their folder: `, make("code", {}, command));
  }

  /** The images that are chosen; without a filter those that are flagged, marked or have a remark, if there are any. */
  #printed() {
    const all = counted(this.lot.rows.length, "image");
    const filters = filtersOf(this.choice);
    if (filters.length) return { rows: this.chosen, showing: `${this.chosen.length.toLocaleString("en")} of ${all}: ${filters.join(", ")}` };
    const said = (/** @type {Row} */ row) => Object.values(this.marks.get(row.entry.name)).some(Boolean);
    const flagged = this.chosen.filter((row) => ["reject", "review"].includes(this.verdicts[row.index]) || said(row));
    if (flagged.length) return { rows: flagged, showing: `${flagged.length.toLocaleString("en")} of ${all}: those that are flagged, marked or have a remark` };
    return { rows: this.chosen, showing: `all ${all}` };
  }

  /**
   * Where a row's map reaches the limit, in words.
   * @param {Row} row
   */
  #where(row) {
    const grid = judgedGridOf(row, this.lot);
    const regions = regionsIn(row, grid && fieldOf(grid), this.limits, pixelLimit(this.lot, this.limits));
    return regions.slice(0, 1).map((r) => `${placeOf(r)}${regions.length > 1 ? `, and ${regions.length - 1} more` : ""}`).join("");
  }

  #layOut() {
    const { lot, limits } = this;
    const { rows, showing } = this.#printed();
    const from = [limits.reject !== null && `reject from ${distance(limits.reject, 4)}`, limits.review !== null && `review from ${distance(limits.review, 4)}`].filter(Boolean).join(", ");
    return layOut(byId("paper", HTMLElement), {
      title: byId("title", HTMLElement).textContent ?? "",
      lines: [
        subtitle(lot),
        byId("meaning", HTMLElement).textContent ?? "",
        from && `Limits${limits.moved ? " of whoever printed this" : ""}: ${from} (${judgedWord(lot)}).`,
        ...lot.part.warnings.map((text) => `Warning: ${shownName(text)}`),
        `Showing ${showing}. Printed ${new Date().toLocaleString("sv").slice(0, 16)} by musc-edge ${this.version}.`,
      ].filter(Boolean),
      judged: judgedWord(lot),
      rows,
      heat: (row) => this.#heat(row),
      where: (row) => this.#where(row),
      word: (row) => wordOf(row, this.verdicts[row.index], this.marks.get(row.entry.name).mark),
      mark: (row) => this.marks.get(row.entry.name),
    });
  }

  #theme() {
    const button = byId("theme", HTMLButtonElement);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const show = (/** @type {boolean} */ isDark) => {
      document.documentElement.dataset.theme = isDark ? "dark" : "light";
      button.setAttribute("aria-pressed", String(isDark));
    };
    show(dark.matches);
    dark.addEventListener("change", () => show(dark.matches));
    button.addEventListener("click", () => show(document.documentElement.dataset.theme !== "dark"));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { target } = event;
    const writing = target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
    if (writing || this.view.isOpen || event.altKey || event.ctrlKey || event.metaKey) return;
    const card = target instanceof HTMLAnchorElement && target.classList.contains("card") ? this.chosen[this.grid.current] : undefined;
    const mark = { g: "good", b: "bad" }[event.key.toLowerCase()];
    if (event.key === "/") byId("search", HTMLElement).focus();
    else if (event.key.toLowerCase() === "h") this.#heatForAll(!this.grid.heatForAll);
    else if (card?.scored && mark) this.#marked(card, { mark: this.marks.get(card.entry.name).mark === mark ? "" : mark });
    else return;
    event.preventDefault();
  }
}

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @param {string} event
 * @param {(element: T) => void} act
 */
function on(id, kind, event, act) {
  const element = byId(id, kind);
  element.addEventListener(event, () => act(element));
}

/** @param {Row} row */
function address(row) {
  return addressOf(row.entry.name);
}

/**
 * @param {Row} row
 * @param {Verdict} verdict
 * @param {string} mark
 */
function wordOf(row, verdict, mark) {
  if (row.scored && mark === "good") return "Good";
  return verdict === "not scored" ? row.entry.status.replaceAll("_", " ") : verdict === "" ? "" : WORDS[verdict];
}

/** @param {Lot} lot */
function subtitle({ rows, part }) {
  const scored = rows.filter((row) => row.scored).length;
  const rest = rows.length - scored;
  const others = part.judges_per_image === scored - 1 ? "all others" : `${part.judges_per_image} others`;
  const how = byResidual(part) ? "scored by what lies outside of what they have in common" : `each compared with ${others}`;
  return [`${counted(scored, "image")}, ${how}`, rest && `${rest} not scored`, String(part.bundle.backbone)].filter(Boolean).join(" · ");
}

/** @param {Lot} lot */
function fileName(lot) {
  return lastPart(lot.part.lot).replace(/[^\p{L}\p{N}._-]+/gu, "_") || "lot";
}

new Page().start();
