/* The page of the last images: asks the server for results that are new, and shows them. */

/**
 * @typedef {{centre: number, low: number | null, high: number | null}} Control
 * @typedef {{name: string, reject_above: number | null, control: Control | null}} Reference
 * @typedef {{state: string, what: string[]}} Drift
 * @typedef {{id: number, time: string, reference: string, image: string, status: string, raw_score: number | null,
 *   p: number | null, verdict: string, warnings: string[], error: string, links: Object<string, string>,
 *   drift?: Drift}} Result
 */

const EVERY = 2000; // milliseconds between two questions
const SHOWN = 60;
const HEIGHT = 260, EDGE = 12, LEFT = 56; // pixels
const SVG = "http://www.w3.org/2000/svg";

/** @type {Result[]} the newest first */
let results = [];
/** @type {Reference[]} */
let references = [];
let paused = false;

const choice = /** @type {HTMLSelectElement} */ (at("reference"));
const list = at("images");

/** @param {string} id */
function at(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/**
 * An element with a class, and texts or elements in it.
 * @param {string} tag @param {string} name @param {...(Node | string)} inside
 */
function make(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

/**
 * @param {string} tag @param {Object<string, string | number>} attributes @param {...(Node | string)} inside
 */
function draw(tag, attributes, ...inside) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...inside);
  return made;
}

async function ask() {
  const reference = choice.value ? `&reference=${encodeURIComponent(choice.value)}` : "";
  const after = results.length ? results[0].id : 0;
  const answer = await fetch(`/v1/recent?count=${SHOWN}&after=${after}${reference}`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.json();
}

async function update() {
  if (!paused && !document.hidden) {
    const asked = choice.value;
    try {
      const found = await ask();
      if (choice.value === asked) take(found);
    } catch (error) {
      say(`No answer from the server since ${clock(new Date().toISOString())}: ${error instanceof Error ? error.message : error}`, true);
    }
  }
  setTimeout(update, EVERY);
}

/** @param {{references: Reference[], results: Result[]}} found */
function take(found) {
  references = found.references;
  fillChoice();
  for (const result of found.results.toReversed()) list.prepend(card(result));
  while (list.children.length > SHOWN) list.lastElementChild?.remove();
  results = [...found.results, ...results].slice(0, SHOWN);
  at("none").hidden = results.length > 0;
  if (found.results.length || !at("chart").children.length) at("chart").replaceChildren(chart());
  showKey();
  const newest = results[0];
  const state = newest?.drift?.state;
  const line = state === "changed" ? ` The line of ${newest.reference} has changed: ${newest?.drift?.what.join("; ")}.` : state === "steady" ? " The line is steady." : "";
  say(newest ? `Last image at ${clock(newest.time)}, ${newest.verdict || newest.status}.${line}` : "Waiting for the first image.", state === "changed");
}

/** @param {string} text @param {boolean} wrong */
function say(text, wrong = false) {
  const state = at("state");
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("wrong", wrong);
}

function fillChoice() {
  if (choice.options.length) return;
  if (references.length > 1) choice.append(new Option("all", ""));
  choice.append(...references.map((each) => new Option(each.name, each.name)));
}

/** @param {string} time */
function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

/** @param {Result} result */
function card(result) {
  const rejected = result.verdict === "reject";
  const name = result.image || `image ${result.id}`;
  const verdict = rejected ? "✕ reject" : result.verdict || result.status.replace("_", " ");
  const text = make("div", "text", make("div", "name", name), make("div", rejected ? "verdict reject" : "verdict", verdict));
  if (result.raw_score !== null && result.p !== null) {
    text.append(make("div", "quiet", `raw ${result.raw_score.toFixed(3)}, p ${result.p.toFixed(3)}`));
  }
  text.append(make("div", "quiet", `${clock(result.time)}, ${result.reference}`));
  for (const warning of result.warnings) text.append(folded(warning));
  if (result.error) text.append(make("div", "warning", result.error));
  return make("li", rejected ? "reject" : "", picture(result, name), text);
}

/**
 * A warning, of which what comes after the colon is shown when it is asked for.
 * @param {string} warning
 */
function folded(warning) {
  const [first, ...rest] = warning.split(": ");
  return make("details", "warning", make("summary", "", first), rest.join(": "));
}

/** @param {Result} result @param {string} name */
function picture(result, name) {
  if (!result.links.preview) return make("div", "picture", make("div", "nothing", "no picture"));
  const link = /** @type {HTMLAnchorElement} */ (make("a", "picture"));
  link.href = result.links.overlay;
  const image = document.createElement("img");
  image.alt = `${name}, with its map`;
  image.loading = "lazy";
  image.src = result.verdict === "reject" ? result.links.overlay : result.links.preview;
  image.addEventListener("error", () => link.replaceWith(make("div", "picture", make("div", "nothing", "picture no longer kept"))));
  link.append(image);
  return link;
}

/** The reference whose limits the chart shows: all that is shown is of one, or there are none to show. */
function judged() {
  const name = choice.value || (references.length === 1 ? references[0].name : "");
  return references.find((each) => each.name === name);
}

function chart() {
  const width = Math.max(at("chart").clientWidth, 200), height = HEIGHT;
  const scored = results.filter((each) => each.raw_score !== null).toReversed();
  const about = judged();
  const lines = [about?.reject_above, about?.control?.low, about?.control?.high].filter((each) => each != null);
  const values = [...scored.map((each) => each.raw_score ?? 0), ...lines.map(Number)];
  const step = nice(values.length ? Math.max(...values) - Math.min(...values) : 1);
  const low = values.length ? Math.floor(Math.min(...values) / step) : 0;
  const high = values.length ? Math.max(Math.ceil(Math.max(...values) / step), low + 1) : 4;
  /** @param {number} value */
  const y = (value) => height - EDGE - ((value / step - low) / (high - low)) * (height - 2 * EDGE);
  /** @param {number} k */
  const x = (k) => LEFT + ((k + 0.5) / Math.max(scored.length, 1)) * (width - LEFT - EDGE);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(scored, about) });
  for (let k = low; k <= high; k++) {
    const line = { class: "axis", x1: LEFT, x2: width, y1: y(k * step), y2: y(k * step) };
    svg.append(draw("line", line), draw("text", { x: 8, y: y(k * step) + 4 }, (k * step).toFixed(step < 0.01 ? 3 : 2)));
  }
  /** @param {string} name @param {number | null | undefined} value */
  const across = (name, value) => {
    if (value != null) svg.append(draw("line", { class: name, x1: LEFT, x2: width, y1: y(value), y2: y(value) }));
  };
  across("limit", about?.reject_above);
  across("centre", about?.control?.centre);
  across("control", about?.control?.low);
  across("control", about?.control?.high);
  scored.forEach((each, k) => svg.append(dot(each, x(k), y(each.raw_score ?? 0))));
  return svg;
}

/**
 * A round number of which four or five make this span.
 * @param {number} span
 */
function nice(span) {
  const rough = Math.max(span, 0.004) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((each) => each * power >= rough) ?? 10);
}

/**
 * A circle, or for a rejected image a diamond, so that colour is not all.
 * @param {Result} result @param {number} x @param {number} y
 */
function dot(result, x, y) {
  const title = draw("title", {}, `${result.image || `image ${result.id}`}, ${clock(result.time)}: ${result.raw_score?.toFixed(3)}, ${result.verdict}`);
  if (result.verdict !== "reject") return draw("circle", { class: "dot", cx: x, cy: y, r: 5 }, title);
  return draw("path", { class: "dot reject", d: `M${x} ${y - 8}l8 8l-8 8l-8 -8z` }, title);
}

/** @param {Result[]} scored @param {Reference | undefined} about */
function described(scored, about) {
  const rejected = scored.filter((each) => each.verdict === "reject").length;
  const limit = about?.reject_above != null ? `, limit ${about.reject_above.toFixed(3)}` : "";
  return `Scores of the last ${scored.length} images, ${rejected} rejected${limit}`;
}

function showKey() {
  const about = judged();
  const entries = [entry("circle", { class: "dot", cx: 16, cy: 9, r: 5 }, "not flagged"), entry("path", { class: "dot reject", d: "M16 1l8 8l-8 8l-8 -8z" }, "reject")];
  const line = { x1: 0, x2: 32, y1: 9, y2: 9 };
  if (about?.reject_above != null) entries.push(entry("line", { class: "limit", ...line }, `rejected above ${about.reject_above.toFixed(3)}`));
  if (about?.control) entries.push(entry("line", { class: "control", ...line }, "nine in ten good images, and their middle"));
  if (!about && references.length > 1) entries.push(make("li", "", "choose a reference to see its limit"));
  at("key").replaceChildren(...entries);
}

/** @param {string} tag @param {Object<string, string | number>} attributes @param {string} text */
function entry(tag, attributes, text) {
  return make("li", "", draw("svg", { viewBox: "0 0 32 18", "aria-hidden": "true" }, draw(tag, attributes)), text);
}

choice.addEventListener("change", () => {
  results = [];
  list.replaceChildren();
  at("chart").replaceChildren();
  ask().then(take, (error) => say(String(error), true));
});
addEventListener("resize", () => at("chart").replaceChildren(chart()));
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
});
update();
