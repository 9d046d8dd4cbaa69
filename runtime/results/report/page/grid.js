/** The images as cards; only those in sight are in the page. */

import { make, oncePerFrame } from "./dom.js";
import { distance, shortened, shownName } from "./text.js";

/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Verdict} Verdict */

/**
 * What the cards are made with.
 * @typedef {object} Painter
 * @property {(row: Row) => Verdict} verdict
 * @property {(row: Row) => string} mark
 * @property {(row: Row) => string} remark
 * @property {() => string} judgedWord what images are judged by
 * @property {(row: Row) => string} address
 * @property {(row: Row) => HTMLCanvasElement | null} heat
 * @property {(row: Row, verdict: Verdict) => string} word of a verdict
 */

/** @typedef {{item: HTMLLIElement, link: HTMLAnchorElement, verdict: HTMLElement, heat: HTMLCanvasElement | null, shown: string}} Card */

const NAME_LETTERS = 28;
const FOLDER_LETTERS = 10;

export class Grid {
  /**
   * @param {HTMLUListElement} list
   * @param {Painter} painter
   */
  constructor(list, painter) {
    this.list = list;
    this.painter = painter;
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Map<number, Card>} by place in `rows` */
    this.cards = new Map();
    this.current = 0; // place of the card that the tab key comes to
    this.heatForAll = false;
    this.layout = { columns: 1, width: 0, height: 0, gap: 0 };
    const fill = oncePerFrame(() => this.#fill());
    addEventListener("scroll", fill, { passive: true });
    new ResizeObserver(oncePerFrame(() => this.#arrange())).observe(list);
    addEventListener("resize", oncePerFrame(() => this.#arrange()));
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => this.#focused(event));
    list.addEventListener("pointerover", (event) => this.#heat(this.#cardOf(event.target)));
  }

  /** @param {Row[]} rows */
  show(rows) {
    for (const [place, { item }] of this.cards) {
      if (rows[place] === this.rows[place]) {
        item.setAttribute("aria-setsize", String(rows.length));
        continue;
      }
      item.remove();
      this.cards.delete(place);
    }
    this.rows = rows;
    this.current = Math.min(this.current, Math.max(0, rows.length - 1));
    this.#stretch();
    this.#fill();
  }

  /** Make all cards anew. */
  redraw() {
    for (const { item } of this.cards.values()) item.remove();
    this.cards.clear();
    this.#arrange();
  }

  /** Show verdicts and marks that have changed. */
  refresh() {
    for (const [place, card] of this.cards) this.#judge(card, this.rows[place]);
  }

  /** @param {boolean} all */
  setHeat(all) {
    this.heatForAll = all;
    this.list.classList.toggle("heated", all);
    if (all) for (const card of this.cards.values()) this.#heat(card);
  }

  /**
   * Bring a card into sight and give it the focus.
   * @param {number} place
   */
  focus(place) {
    this.current = Math.min(Math.max(0, place), this.rows.length - 1);
    const { height, gap, columns } = this.layout;
    const top = this.list.getBoundingClientRect().top + Math.floor(this.current / columns) * (height + gap);
    const head = this.list.previousElementSibling?.getBoundingClientRect().height ?? 0;
    const below = top + height - innerHeight;
    if (top < head) scrollBy({ top: top - head - gap, behavior: "instant" });
    else if (below > 0) scrollBy({ top: below + gap, behavior: "instant" });
    this.#fill();
    this.cards.get(this.current)?.link.focus({ preventScroll: true });
  }

  #arrange() {
    const style = getComputedStyle(this.list);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const gap = parseFloat(style.columnGap) || 0;
    const least = Math.max(9 * rem, innerWidth * 0.15);
    const room = this.list.clientWidth;
    const columns = Math.max(1, Math.floor((room + gap) / (least + gap)));
    const width = (room - gap * (columns - 1)) / columns;
    this.layout = { columns, width, height: width + 3.4 * rem, gap };
    this.#stretch();
    for (const [place, { item }] of this.cards) this.#place(item, place);
    this.#fill();
  }

  /** Make the list as tall as all cards would be. */
  #stretch() {
    const { columns, height, gap } = this.layout;
    const lines = Math.ceil(this.rows.length / columns);
    this.list.style.height = `${Math.max(0, lines * (height + gap) - gap)}px`;
  }

  /** Put the cards in sight into the page, and take the others out. */
  #fill() {
    const { columns, height, gap } = this.layout;
    const top = this.list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / (height + gap))) * columns;
    const end = Math.min(this.rows.length, Math.max(0, Math.ceil((innerHeight - top) / (height + gap))) * columns);
    // That of the tab key stays, wherever it is: it may have the focus, and without it the key would miss the list.
    const wanted = (/** @type {number} */ place) => (place >= first && place < end) || (place === this.current && place < this.rows.length);
    for (const [place, { item }] of this.cards) {
      if (wanted(place)) continue;
      item.remove();
      this.cards.delete(place);
    }
    for (let place = first; place < end; place++) if (!this.cards.has(place)) this.#add(place);
    if (wanted(this.current) && !this.cards.has(this.current)) this.#add(this.current);
    this.#tabStop();
  }

  #tabStop() {
    for (const [place, { link }] of this.cards) link.tabIndex = place === this.current ? 0 : -1;
  }

  /** @param {number} place */
  #add(place) {
    const row = this.rows[place];
    const card = this.#card(row);
    card.item.setAttribute("aria-setsize", String(this.rows.length));
    card.item.setAttribute("aria-posinset", String(place + 1));
    card.item.dataset.place = String(place);
    this.#place(card.item, place);
    this.#judge(card, row);
    this.cards.set(place, card);
    // In the order of the rows, which is that of reading and of the tab key.
    const next = [...this.cards].filter(([other]) => other > place).sort(([a], [b]) => a - b)[0];
    this.list.insertBefore(card.item, next ? next[1].item : null);
    if (this.heatForAll) this.#heat(card);
  }

  /**
   * @param {HTMLElement} item
   * @param {number} place
   */
  #place(item, place) {
    const { columns, width, height, gap } = this.layout;
    item.style.width = `${width}px`;
    item.style.height = `${height}px`;
    item.style.transform = `translate(${(place % columns) * (width + gap)}px, ${Math.floor(place / columns) * (height + gap)}px)`;
  }

  /**
   * @param {Row} row
   * @returns {Card}
   */
  #card(row) {
    const verdict = make("span", { class: "verdict" });
    const folder = row.folder && `${shortened(shownName(row.folder), FOLDER_LETTERS)}/`;
    const name = make("bdi", { class: "name", title: row.shown }, shortened(row.base, NAME_LETTERS - folder.length));
    if (folder) name.prepend(make("span", { class: "folder" }, folder));
    const link = make("a", { class: "card", href: this.painter.address(row), draggable: "false" }, this.#picture(row), name);
    if (row.scored) {
      link.dataset.rank = String(row.rank);
      link.append(make("span", { class: "score", title: this.painter.judgedWord() }, distance(row.value)));
    }
    link.append(verdict);
    return { item: make("li", {}, link), link, verdict, heat: null, shown: "" };
  }

  /** @param {Row} row */
  #picture(row) {
    if (!row.entry.picture) return make("span", { class: "tile no-picture" }, row.scored ? "no picture" : row.entry.error);
    const picture = make("img", { class: "tile", alt: "", decoding: "async", draggable: "false" });
    picture.src = row.entry.picture;
    return picture;
  }

  /**
   * @param {Card} card
   * @param {Row} row
   */
  #judge(card, row) {
    const verdict = this.painter.verdict(row);
    const mark = this.painter.mark(row);
    const word = this.painter.word(row, verdict);
    const note = [mark && `marked ${mark}`, this.painter.remark(row) && "remark"].filter(Boolean).join(", ");
    if (card.shown === `${verdict} ${word} ${note}`) return;
    card.shown = `${verdict} ${word} ${note}`;
    card.link.dataset.verdict = verdict;
    card.link.dataset.mark = mark;
    card.link.dataset.note = note;
    card.verdict.textContent = word;
    const parts = [row.shown, row.scored && `rank ${row.rank}`, row.scored && `${this.painter.judgedWord()} ${distance(row.value)}`, word, note];
    card.link.setAttribute("aria-label", parts.filter(Boolean).join(", "));
  }

  /**
   * Give a card its heatmap, if it has none yet.
   * @param {Card | undefined} card
   */
  #heat(card) {
    if (!card || card.heat) return;
    const row = this.rows[Number(card.item.dataset.place)];
    card.heat = this.painter.heat(row);
    if (card.heat) card.link.firstElementChild?.after(card.heat);
  }

  /** @param {EventTarget | null} target */
  #cardOf(target) {
    const item = target instanceof Element ? target.closest("li") : null;
    return item ? this.cards.get(Number(item.dataset.place)) : undefined;
  }

  /** @param {FocusEvent} event */
  #focused(event) {
    const card = this.#cardOf(event.target);
    if (!card) return;
    this.current = Number(card.item.dataset.place);
    this.#tabStop();
    this.#heat(card);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { columns, height, gap } = this.layout;
    const page = Math.max(1, Math.floor(innerHeight / (height + gap))) * columns;
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: this.current - 1, ArrowRight: this.current + 1, ArrowUp: this.current - columns, ArrowDown: this.current + columns,
      PageUp: this.current - page, PageDown: this.current + page, Home: 0, End: this.rows.length - 1,
    };
    if (!(event.key in to) || event.altKey || event.ctrlKey || event.metaKey || !this.#cardOf(event.target)) return;
    event.preventDefault();
    const place = to[event.key];
    const isStep = event.key === "ArrowUp" || event.key === "ArrowDown";
    if (isStep && (place < 0 || place >= this.rows.length)) return;
    this.focus(place);
  }
}
