/** The large view of one image: its map, where that reaches the limit, what is known of it, and a mark. */

import { drawMap, drawRamp, fitted } from "./colour.js";
import { fieldOf, isPoint, outline, regionsFrom, regionsOf } from "./contours.js";
import { gridOf } from "./data.js";
import { button, imageLink, isolated, make, makeSvg } from "./dom.js";
import { verdictWithout, WORDS } from "./judge.js";
import { counted, distance } from "./text.js";
import { Zoom } from "./zoom.js";

/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Verdict} Verdict */
/** @typedef {import("./judge.js").Limits} Limits */
/** @typedef {import("./marks.js").Marks} Marks */
/** @typedef {import("./contours.js").Region} Region */
/** @typedef {{scale: import("./colour.js").Scale, colours: Uint8Array}} Colours */

/**
 * What the view asks the page for.
 * @typedef {object} Host
 * @property {(row: Row) => Verdict} verdict
 * @property {() => "score" | "raw_score"} judgedBy
 * @property {(row: Row, verdict: Verdict, mark: string) => string} word
 * @property {() => Limits} limits
 * @property {(row: Row) => string[]} copies the other images of its shot
 * @property {() => number | null} pixelLimit
 * @property {(row: Row) => import("./colour.js").Grid | null} judgedGrid
 * @property {() => boolean} leveled
 * @property {() => Colours} colours
 * @property {() => number} scored how many images have a score
 * @property {Marks} marks
 * @property {(row: Row, change: {mark?: string, remark?: string}) => void} marked
 * @property {(step: number) => void} go to another image
 * @property {() => void} closed
 */

const UNIT = 1e-6; // in which limits and peaks are written
const LONGEST = 384; // points of a drawn map
const NEAR_EDGE = 0.1; // part of a side on which there is no room for a number
const MOST_REGIONS = 12; // in the table

export class View {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {Host} host
   */
  constructor(dialog, host) {
    this.dialog = dialog;
    this.host = host;
    /** @type {Row | null} */
    this.row = null;
    this.shows = { heat: true, outline: true, regions: true };
    this.name = make("h2", { id: "view-name", tabindex: "-1" });
    this.place = make("p", { class: "quiet place" });
    this.picture = make("div", { class: "picture" });
    this.stage = make("div", { class: "stage" }, this.picture);
    this.side = make("div", { class: "side" });
    this.zoom = new Zoom(this.stage, this.picture);
    this.remark = make("textarea", { id: "remark", rows: "2" });
    this.#build();
    new ResizeObserver(() => this.#fit()).observe(this.stage);
  }

  get isOpen() {
    return this.dialog.open;
  }

  /**
   * @param {Row} row
   * @param {string} place "3 of 90"
   */
  open(row, place) {
    const other = row !== this.row;
    this.row = row;
    this.name.replaceChildren(isolated(row.shown));
    this.place.textContent = place;
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.name.focus();
    }
    if (other) {
      this.zoom.reset();
      this.remark.value = this.host.marks.get(row.entry.name).remark;
      this.side.scrollTop = 0;
    }
    this.refresh();
  }

  close() {
    this.dialog.close();
  }

  /** Draw what depends on limits, marks and colours. */
  refresh() {
    if (!this.row || !this.dialog.open) return;
    const field = this.#field();
    const limit = this.host.pixelLimit();
    const regions = regionsIn(this.row, field, this.host.limits(), limit);
    this.#drawPicture(this.row, field, limit, regions);
    this.#drawSide(this.row, regions, limit);
    this.#fit();
  }

  #build() {
    const bar = make(
      "div",
      { class: "view-bar" },
      make("div", { class: "steps", role: "group", "aria-label": "Images" }, button("‹", () => this.host.go(-1), { "aria-label": "Previous image", title: "Left arrow" }), button("›", () => this.host.go(1), { "aria-label": "Next image", title: "Right arrow" })),
      this.name,
      this.place,
      button("Close", () => this.close(), { title: "Escape" }),
    );
    this.dialog.append(bar, make("div", { class: "view-body" }, this.stage, this.side));
    this.dialog.addEventListener("close", () => {
      this.row = null;
      this.host.closed();
    });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.remark.addEventListener("input", () => this.row && this.host.marked(this.row, { remark: this.remark.value }));
    // A place in which the parts that change are drawn anew, while the remark is being written.
    this.verdict = make("div", { class: "view-verdict" });
    this.facts = make("dl", { class: "pairs" });
    this.ramp = make("canvas", { width: "256", height: "1", role: "img" });
    this.rampText = make("figcaption");
    this.layers = make("div", { class: "switches", role: "group", "aria-label": "Over the picture" });
    this.good = button("Good", () => this.#mark("good"), { class: "mark good", title: "Key G" });
    this.bad = button("Bad", () => this.#mark("bad"), { class: "mark bad", title: "Key B" });
    this.table = make("div", { class: "regions" });
    this.links = make("p", { class: "links" });
    this.side.append(
      this.verdict,
      make("div", { class: "marking", role: "group", "aria-label": "Your mark" }, make("span", { class: "label" }, "Mark as"), this.good, this.bad),
      make("label", { class: "label", for: "remark" }, "Remark"),
      this.remark,
      this.layers,
      make("figure", { class: "legend" }, this.ramp, this.rampText),
      this.facts,
      this.table,
      this.links,
    );
    for (const [what, text, key] of /** @type {const} */ ([["heat", "Heatmap", "H"], ["outline", "Outline", "O"], ["regions", "Regions", "R"]])) {
      this.layers.append(button(text, () => this.#toggle(what), { "data-layer": what, title: `Key ${key}` }));
    }
  }

  #field() {
    const grid = this.row && this.host.judgedGrid(this.row);
    return grid ? fieldOf(grid) : null;
  }

  /**
   * @param {Row} row
   * @param {import("./contours.js").Field | null} field
   * @param {number | null} limit
   * @param {Region[]} regions
   */
  #drawPicture(row, field, limit, regions) {
    const { width, height } = row;
    /** @type {HTMLElement[]} */
    const parts = [this.#image(row)];
    const grid = gridOf(row);
    if (grid) {
      const size = fitted(width, height, LONGEST);
      const canvas = make("canvas", { width: String(size.width), height: String(size.height), class: "heat" });
      const { scale, colours } = this.host.colours();
      drawMap(canvas, grid, scale, colours, !row.entry.picture);
      this.#drawLegend(scale, colours);
      parts.push(canvas);
    }
    const drawing = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "drawing", "aria-hidden": "true" });
    if (field && limit !== null) {
      const path = outline(field, limit - UNIT / 2, width, height);
      drawing.append(makeSvg("path", { d: path, class: "outline under" }), makeSvg("path", { d: path, class: "outline" }));
    }
    drawing.append(...repeatedIn(row).map(([x, y, w, h]) => makeSvg("rect", { x, y, width: w, height: h, class: "repeated" })));
    drawing.append(...regions.slice(0, MOST_REGIONS).filter((r) => !isPoint(r)).map((r) => makeSvg("rect", { x: r.x, y: r.y, width: r.width, height: r.height, class: "region" })));
    this.picture.replaceChildren(...parts, drawing, ...regions.slice(0, MOST_REGIONS).map((r, i) => this.#number(r, i + 1, row)));
    for (const [layer, on] of Object.entries(this.shows)) {
      this.picture.classList.toggle(`with-${layer}`, on);
      this.layers?.querySelector(`[data-layer=${layer}]`)?.setAttribute("aria-pressed", String(on));
    }
  }

  /**
   * @param {import("./colour.js").Scale} scale
   * @param {Uint8Array} colours
   */
  #drawLegend({ low, high }, colours) {
    if (!this.ramp || !this.rampText) return;
    drawRamp(this.ramp, colours);
    this.ramp.setAttribute("aria-label", `Scale of the heatmap: ${distance(low, 2)} to ${distance(high, 2)}`);
    this.rampText.replaceChildren(make("span", {}, `${distance(low, 2)} usual for this lot`), make("span", {}, distance(high, 2)));
  }

  /**
   * @param {Region} region
   * @param {number} number
   * @param {Row} row
   */
  #number(region, number, row) {
    const label = make("span", { class: "number" }, String(number));
    label.classList.toggle("below", region.peakY < row.height * NEAR_EDGE);
    label.classList.toggle("before", region.peakX > row.width * (1 - NEAR_EDGE));
    label.style.left = `${(100 * region.peakX) / row.width}%`;
    label.style.top = `${(100 * region.peakY) / row.height}%`;
    return label;
  }

  /**
   * The original where the browser can show it, else the thumbnail.
   * @param {Row} row
   */
  #image(row) {
    const { picture, file, shown, no_picture: reason } = row.entry;
    if (!picture) return make("p", { class: "no-picture" }, row.scored ? `no picture: ${reason ?? "not known"}` : row.entry.error);
    const image = make("img", { alt: `The image ${row.shown}`, draggable: "false" });
    image.src = picture;
    if (file && shown) {
      const original = new Image();
      original.addEventListener("load", () => {
        image.src = original.src;
      });
      original.src = file;
    }
    return image;
  }

  /** Give the picture the largest size that the stage has room for. */
  #fit() {
    if (!this.row) return;
    const room = this.stage.getBoundingClientRect();
    const factor = Math.min(room.width / this.row.width, room.height / this.row.height);
    this.picture.style.width = `${Math.max(1, this.row.width * factor)}px`;
    this.picture.style.height = `${Math.max(1, this.row.height * factor)}px`;
  }

  /**
   * @param {Row} row
   * @param {Region[]} regions
   * @param {number | null} limit
   */
  #drawSide(row, regions, limit) {
    const verdict = this.host.verdict(row);
    const { mark } = this.host.marks.get(row.entry.name);
    this.verdict?.replaceChildren(make("strong", { class: "verdict", "data-verdict": verdict }, this.host.word(row, verdict, mark) + (row.scored && mark ? " (your mark)" : "")), make("span", { class: "quiet" }, this.#because(row, mark)));
    this.good?.setAttribute("aria-pressed", String(mark === "good"));
    this.bad?.setAttribute("aria-pressed", String(mark === "bad"));
    for (const each of [this.good, this.bad, this.remark]) each?.toggleAttribute("disabled", !row.scored);
    this.facts?.replaceChildren(...this.#facts(row).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    this.table?.replaceChildren(...this.#regionTable(regions, limit));
    const { file } = row.entry;
    this.links?.replaceChildren(...(file ? [make("a", { href: file, target: "_blank", rel: "noreferrer" }, "Open the original file")] : []));
  }

  /**
   * How far an image is from the limits.
   * @param {Row} row
   * @param {string} mark
   */
  #because(row, mark) {
    if (!row.scored) return row.entry.error;
    const limits = this.host.limits();
    const said = [farFrom(row, "reject", limits.reject), farFrom(row, "review", limits.review)].filter(Boolean).join("; ");
    if (!mark) return said || "no limit is set";
    return said && `by the limits: ${WORDS[verdictWithout(row, limits)]}, ${said}`;
  }

  /**
   * @param {Row} row
   * @returns {[string, string | Node][]}
   */
  #facts(row) {
    /** @type {[string, string | Node][]} */
    const facts = [];
    if (row.scored) {
      const judged = this.host.judgedBy() === "score" ? ["Score (judged)", "Raw score (not judged)"] : ["Score (after rescoring, not judged)", "Raw score (judged)"];
      facts.push([judged[1], distance(row.raw, 4)], [judged[0], distance(row.score, 4)], ["Rank", `${row.rank} of ${this.host.scored()}`]);
    } else facts.push(["Status", row.entry.status]);
    if (row.entry.p !== undefined) facts.push(["Share of good images expected to score this high (p)", row.entry.p.toPrecision(2)]);
    const copies = this.host.copies(row);
    if (copies.length) facts.push(["A copy of", make("span", {}, ...copies.flatMap((name, i) => [i ? ", " : "", imageLink(name)]))]);
    const again = row.entry.repeated?.at.length;
    if (again) facts.push(["Repeated", `${again.toLocaleString("en")} ${again === 1 ? "patch (dotted)" : "patches (dotted)"}, found on some other images only`]);
    if (row.entry.size) facts.push(["Size", `${row.width} × ${row.height} pixels`]);
    if (row.scored && row.entry.error) facts.push(["Missing", row.entry.error]);
    if (row.scored && row.entry.no_picture) facts.push(["Picture", row.entry.no_picture]);
    return facts;
  }

  /**
   * @param {Region[]} regions
   * @param {number | null} limit
   */
  #regionTable(regions, limit) {
    if (!this.row?.scored) return [];
    if (limit === null) return [make("p", { class: "quiet" }, "Regions are outlined where the map reaches a limit: set one in the histogram.")];
    if (!this.row.entry.map && !this.row.entry.regions) return [make("p", { class: "quiet" }, "No map was written for this image.")];
    const title = `${counted(regions.length, "region")} at ${distance(limit)} or more`;
    if (!regions.length) return [make("p", { class: "quiet" }, title)];
    const head = make("tr", {}, ...["No.", "Peak", "Area, px", "Place, px"].map((text) => make("th", { scope: "col" }, text)));
    const rows = regions.slice(0, MOST_REGIONS).map((r, i) =>
      make("tr", {}, make("th", { scope: "row" }, String(i + 1)), make("td", {}, distance(r.peak)), make("td", {}, isPoint(r) ? "a point" : Math.round(r.area).toLocaleString("en")), make("td", {}, `${r.x}, ${r.y}`)),
    );
    const why = "A region is where the map reaches the limit, at the image's own size; the glow around it lies below. The raw score is the map's largest value at the model's size, so that peaks differ a little from it." + (this.host.leveled() ? " What each position has in all images of the lot is taken off before." : "");
    const rest = regions.length - MOST_REGIONS;
    return [make("table", {}, make("caption", {}, title), make("thead", {}, head), make("tbody", {}, ...rows)), make("p", { class: "quiet small" }, why), ...(rest > 0 ? [make("p", { class: "quiet" }, `and ${rest} more`)] : [])];
  }

  /** @param {string} mark */
  #mark(mark) {
    if (!this.row?.scored) return;
    const now = this.host.marks.get(this.row.entry.name).mark;
    this.host.marked(this.row, { mark: now === mark ? "" : mark });
  }

  /** @param {"heat" | "outline" | "regions"} what */
  #toggle(what) {
    this.shows[what] = !this.shows[what];
    this.picture.classList.toggle(`with-${what}`, this.shows[what]);
    this.layers?.querySelector(`[data-layer=${what}]`)?.setAttribute("aria-pressed", String(this.shows[what]));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const writing = event.target === this.remark;
    if (event.altKey || event.ctrlKey || event.metaKey || (writing && event.key !== "Escape")) return;
    /** @type {Record<string, () => void>} */
    const acts = {
      ArrowLeft: () => this.host.go(-1), ArrowRight: () => this.host.go(1),
      g: () => this.#mark("good"), b: () => this.#mark("bad"),
      h: () => this.#toggle("heat"), o: () => this.#toggle("outline"), r: () => this.#toggle("regions"),
      "+": () => this.zoom.step(1), "=": () => this.zoom.step(1), "-": () => this.zoom.step(-1), 0: () => this.zoom.reset(),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

/**
 * The regions of an image: those of the results at their own limit, else those of the map.
 * @param {Row} row
 * @param {import("./contours.js").Field | null} field
 * @param {Limits} limits
 * @param {number | null} limit on the map's values
 * @returns {Region[]}
 */
export function regionsIn(row, field, limits, limit) {
  if (limit === null) return [];
  const known = row.entry.regions;
  if (known && !limits.moved) return regionsFrom(known);
  return field ? regionsOf(field, limit - UNIT / 2, row.width, row.height) : [];
}

/**
 * Where an image shows what is on several others too, but not on most: x, y, width and height of each patch.
 * @param {Row} row
 * @returns {[number, number, number, number][]}
 */
export function repeatedIn(row) {
  if (!row.entry.repeated) return [];
  const [rows, columns] = row.entry.repeated.grid;
  const [width, height] = [row.width / columns, row.height / rows];
  return row.entry.repeated.at.map((k) => [(k % columns) * width, Math.floor(k / columns) * height, width, height]);
}

/**
 * How far an image is from a limit, in words; empty where there is none.
 * @param {Row} row
 * @param {"reject" | "review"} name
 * @param {number | null} limit
 */
function farFrom(row, name, limit) {
  if (limit === null) return "";
  const far = row.value - limit;
  if (Math.abs(far) < UNIT / 2) return `exactly at the ${name} limit of ${distance(limit)}, which counts as ${name}`;
  const digits = Math.abs(far) < 0.0005 ? 6 : 3;
  return `${distance(Math.abs(far), digits)} ${far >= 0 ? "above" : "below"} the ${name} limit of ${distance(limit, digits)}`;
}
