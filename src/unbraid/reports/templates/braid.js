"use strict";
// The braid: the trunk as a line, an arc for each branch, and a path that is picked block by block. All values come from
// the JSON beside it; names are set as text, never as markup.
// A choice is the number of a branch, from 0, or −1 for the skip; as text a digit or a letter, or a dot.
const SKIP = -1;
const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
  + Array.from({ length: 66 }, (_, more) => String.fromCharCode(0x13e + more)).join("");
const letter = (choice) => choice === SKIP ? "·" : DIGITS[choice];
const SVG = "http://www.w3.org/2000/svg";

const element = (name, attributes = {}, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const html = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const short = (value) => value === null ? "–" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
  ? value.toExponential(3) : String(Number(value.toPrecision(4)));

class Braid {
  constructor(place) {
    this.place = place;
    this.data = JSON.parse(place.querySelector("script").textContent);
    this.blocks = this.data.blocks;
    this.choices = this.blocks.map(() => SKIP);
    this.closed = new Set(this.data.collapsed ? this.data.stages.keys() : []);
    this.measure = this.data.measures.length ? 0 : -1;
    this.current = 0;
    this.ranks = new Map((this.data.paths?.masks ?? []).map((mask, rank) => [mask, rank]));
    this.strands = place.querySelector(".strands");
    this.about = place.querySelector(".about");
    this.prepare();
    this.draw();
    new ResizeObserver(() => this.draw()).observe(this.strands);
  }

  prepare() {
    const select = this.place.querySelector("select");
    this.data.measures.forEach((measure, number) => select.append(html("option", { value: number }, measure.title)));
    if (this.measure < 0) select.append(html("option", {}, "nothing was measured"));
    select.addEventListener("change", () => { this.measure = Number(select.value); this.draw(); });
    for (const button of this.place.querySelectorAll("[data-pick]")) {
      const listed = ["first", "previous", "next"].includes(button.dataset.pick);
      if (listed && !this.data.paths) button.remove();
      else button.addEventListener("click", () => this.pick(button.dataset.pick));
    }
    this.place.querySelector(".unscripted").remove();
    for (const hidden of this.place.querySelectorAll(".hint, .controls")) hidden.hidden = false;
    const stages = this.place.querySelector(".stages");
    if (this.data.stages.length > 1) {
      this.data.stages.forEach((stage, number) => {
        const text = stage.first === stage.last ? `${stage.first}` : `${stage.first}–${stage.last}`;
        const button = html("button", { type: "button", title: `blocks ${text}, ${stage.shape}` }, text);
        button.addEventListener("click", () => this.toggleStage(number));
        stages.append(button);
      });
      stages.hidden = false;
    }
    this.strands.addEventListener("keydown", (event) => this.key(event));
  }

  // What stands in the row: a block, or a whole stage that is closed.
  items() {
    return this.data.stages.flatMap((stage, number) => this.closed.has(number)
      ? [{ stage: number, blocks: range(stage.first, stage.last) }]
      : range(stage.first, stage.last).map((block) => ({ block, blocks: [block] })));
  }

  draw() {
    const focused = this.strands.contains(document.activeElement);
    const items = this.items();
    this.current = Math.min(this.current, items.length - 1);
    const room = Math.max(280, Math.floor(this.strands.clientWidth)) - 32;
    const plain = Math.max(30, Math.min(76, Math.floor(room / items.length)));
    const rows = [];
    let left = 0;
    items.forEach((item, number) => {
      const width = item.stage === undefined ? plain : Math.max(plain, 64);  // its label names two blocks
      if (!rows.length || width > left) { rows.push([]); left = room; }
      rows.at(-1).push({ item, number, width });
      left -= width;
    });
    rows.forEach((row, number) => { rows[number] = this.row(row, number === 0, number === rows.length - 1); });
    this.strands.replaceChildren(...rows);
    [...this.place.querySelectorAll(".stages button")].forEach((button, number) =>
      button.setAttribute("aria-expanded", String(!this.closed.has(number))));
    this.say();
    if (focused) this.focus();
  }

  row(places, first, last) {
    const most = Math.max(...places.flatMap(({ item }) => item.blocks.map((k) => this.blocks[k].branches.length)));
    const trunk = 46 + 14 * Math.min(most, 4), height = trunk + 26;
    const end = 16 + places.reduce((sum, { width }) => sum + width, 0);
    const svg = element("svg", { viewBox: `0 0 ${end + 16} ${height}`, width: end + 16, height, role: "presentation" });
    for (const [x1, x2, edge] of [[2, 16, first], [end, end + 14, last]]) {
      svg.append(element("line", { x1, x2, y1: trunk, y2: trunk, class: "way" }));
      svg.append(element("line", { x1, x2, y1: trunk, y2: trunk, class: edge ? "wire" : "wire goes-on" }));
    }
    let x = 16;
    for (const { item, number, width } of places) {
      svg.append(this.item(item, number, x, width, trunk));
      x += width;
    }
    return svg;
  }

  item(item, number, x, width, trunk) {
    const stage = item.stage !== undefined;
    const group = element("g", { class: "item", role: "button", tabindex: number === this.current ? 0 : -1 });
    group.dataset.number = number;
    group.append(element("title", {}, this.label(item)));
    group.setAttribute("aria-label", this.label(item));
    if (!stage) group.setAttribute("aria-pressed", String(this.choices[item.block] !== SKIP));
    group.append(element("rect", { x, y: 2, width, height: trunk + 22, class: "ground" }));
    const from = x + 5, to = x + width - 5;
    const through = item.blocks.some((k) => this.choices[k] !== SKIP);
    const along = item.blocks.some((k) => this.choices[k] === SKIP);
    const most = Math.min(4, Math.max(...item.blocks.map((k) => this.blocks[k].branches.length)));
    const arc = (branch) => {
      const rise = (36 + 14 * branch) * 1.33;
      return `M ${from} ${trunk} C ${from} ${trunk - rise}, ${to} ${trunk - rise}, ${to} ${trunk}`;
    };
    const skip = { x1: from, x2: to, y1: trunk, y2: trunk };
    group.append(element("line", { x1: x, x2: from, y1: trunk, y2: trunk, class: "way" }));
    group.append(element("line", { x1: to, x2: x + width, y1: trunk, y2: trunk, class: "way" }));
    if (along) group.append(element("line", { ...skip, class: "way" }));
    for (let branch = 0; branch < most; branch++) {
      const chosen = stage ? through && branch === 0 : Math.min(3, this.choices[item.block]) === branch;
      if (chosen) group.append(element("path", { d: arc(branch), class: "way" }));
    }
    const kinds = new Set(item.blocks.map((k) => this.blocks[k].skip));
    const kind = kinds.size > 1 ? "identity" : [...kinds][0];
    group.append(element("line", { x1: x, x2: from, y1: trunk, y2: trunk, class: "wire" }));
    group.append(element("line", { x1: to, x2: x + width, y1: trunk, y2: trunk, class: "wire" }));
    if (kind !== "none") group.append(element("line", { ...skip, class: `wire ${kind}` }));
    const { wide, tone } = this.worth(item);
    for (let branch = 0; branch < most; branch++) {
      group.append(element("path", { d: arc(branch), class: `branch ${tone}`, "stroke-width": wide }));
    }
    if (stage) for (const shift of [-5, 5]) {
      group.append(element("path", { d: arc(0), class: `branch ${tone}`, "stroke-width": 1, transform: `translate(0 ${shift})` }));
    }
    group.append(element("circle", { cx: from, cy: trunk, r: 2.2, class: "fork" }));
    if (kind === "gate") group.append(
      element("circle", { cx: x + width / 2, cy: trunk, r: 4, class: "sum" }),
      element("circle", { cx: x + width / 2, cy: trunk, r: 1.3, class: "fork" }));
    if (item.blocks.every((k) => this.blocks[k].join === "concatenation")) group.append(
      element("rect", { x: to - 3.8, y: trunk - 3.8, width: 7.6, height: 7.6, class: "sum beside" }),
      ...[-1.3, 1.3].map((shift) => element("line", { x1: to + shift, x2: to + shift, y1: trunk - 2, y2: trunk + 2, class: "bar" })));
    else group.append(element("circle", { cx: to, cy: trunk, r: 3.6, class: "sum" }));
    const text = stage ? `${item.blocks[0]}–${item.blocks.at(-1)}` : `${item.block}`;
    group.append(element("text", { x: x + width / 2, y: trunk + 18, class: "number" }, text));
    group.addEventListener("click", () => { this.current = number; this.act(item); this.focus(); });
    group.addEventListener("mouseenter", () => { this.about.textContent = this.label(item); });
    group.addEventListener("focus", () => { this.current = number; this.about.textContent = this.label(item); });
    return group;
  }

  // Width by size, colour by sign, against the largest of all blocks.
  worth(item) {
    if (this.measure < 0) return { wide: 2, tone: "more" };
    const values = this.data.measures[this.measure].values;
    const most = Math.max(...values.map((value) => Math.abs(value ?? 0))) || 1;
    const own = item.blocks.map((k) => values[k] ?? 0).reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a);
    return { wide: 1.2 + 6 * Math.abs(own) / most, tone: own < 0 ? "less" : "more" };
  }

  label(item) {
    if (item.stage !== undefined) {
      const taken = item.blocks.filter((k) => this.choices[k] !== SKIP).length;
      return `Blocks ${item.blocks[0]} to ${item.blocks.at(-1)}, closed: the path passes ${taken} of ${item.blocks.length} branches. Press to open.`;
    }
    const block = this.blocks[item.block];
    const choice = this.choices[item.block];
    const after = block.after.length ? `, then ${block.after.join(", ")}` : "";
    const inside = block.nested ? `, ${block.nested} blocks inside` : "";
    const where = block.where ? `, ${block.join === "concatenation" ? "side by side" : "added"} at ${block.where}` : "";
    const measured = this.data.measures.map((m) => `${m.title.toLowerCase()}: ${short(m.values[item.block])}${m.unit ? " " + m.unit : ""}`);
    return `Block ${item.block}, ${block.name}: skip ${block.skip}, branch ${block.branches.join(" | ")}${after}${inside}${where}. `
      + `The path takes ${choice === SKIP ? "the skip" : block.branches.length > 1 ? `branch ${choice}` : "the branch"}. ${measured.join("; ")}`;
  }

  act(item) {
    if (item.stage !== undefined) return this.toggleStage(item.stage);
    const next = this.choices[item.block] + 1;
    this.choices[item.block] = next < this.blocks[item.block].branches.length ? next : SKIP;
    this.draw();
    this.about.textContent = this.label(item);
  }

  toggleStage(number) {
    if (!this.closed.delete(number)) this.closed.add(number);
    const first = this.data.stages[number].first;
    this.current = Math.max(0, this.items().findIndex((item) => item.blocks.includes(first)));
    this.draw();
  }

  key(event) {
    const items = this.items();
    const moves = { ArrowRight: this.current + 1, ArrowLeft: this.current - 1, Home: 0, End: items.length - 1 };
    if (event.key in moves) this.current = Math.max(0, Math.min(items.length - 1, moves[event.key]));
    else if (event.key === "Enter" || event.key === " ") this.act(items[this.current]);
    else return;
    event.preventDefault();
    this.focus();
  }

  focus() {
    const groups = [...this.strands.querySelectorAll(".item")];
    groups.forEach((group, number) => group.setAttribute("tabindex", number === this.current ? 0 : -1));
    groups[this.current]?.focus();
  }

  pick(what) {
    const masks = this.data.paths?.masks;
    const rank = this.rank();
    if (what === "skips") this.choices.fill(SKIP);
    else if (what === "branches") this.choices.fill(0);
    else {
      const next = what === "first" || rank < 0 ? 0 : rank + (what === "next" ? 1 : -1);
      const mask = masks[Math.max(0, Math.min(masks.length - 1, next))];
      this.choices = [...mask].map((text) => DIGITS.indexOf(text))  // −1, the skip, where a path meets no block;
    }
    this.draw();
  }

  // The place of the picked path among those in the page, −1 where it is not among them. A path of a model with several
  // trunks does not meet every block; what is chosen at those does not matter.
  rank() {
    const mask = this.choices.map(letter).join("");
    if (this.ranks.has(mask)) return this.ranks.get(mask);
    return (this.data.paths?.masks ?? []).findIndex((other) => other.includes(" ")
      && [...other].every((text, k) => text === " " || text === mask[k]));
  }

  say() {
    const { paths, lengths, target } = this.data;
    const rank = this.rank();
    const length = this.choices.filter((choice) => choice !== SKIP).length;
    const rows = [["Length", `${length} of ${this.blocks.length} branches`, length]];
    if (rank >= 0) {
      const part = paths.target ? `, ${short(100 * paths.values[rank] / paths.target)} % of ${target}, ${short(paths.target)}` : "";
      rows.push(["Value", short(paths.values[rank]) + part, paths.values[rank]]);
      if (paths.norms[rank] !== null) rows.push(["Gradient along it, norm", short(paths.norms[rank]), paths.norms[rank]]);
      rows.push(["Rank by value", `${rank + 1} of ${paths.masks.length}${paths.complete ? "" : " in the page"}`, rank + 1]);
    } else if (paths) {
      rows.push(["Value", `not among the ${paths.masks.length} paths that the page holds; the line of Python below gives it`, null]);
    }
    const count = lengths.counts[length] ?? "0";
    rows.push(["Paths of this length", count.replace(/\B(?=(\d{3})+$)/g, ","), null]);
    if (lengths.values) {
      const sum = lengths.values.slice(0, length + 1).reduce((a, b) => a + b, 0);
      rows.push(["All of this length together, value", short(lengths.values[length] ?? 0), lengths.values[length] ?? 0]);
      rows.push([`All of lengths 0 to ${length} together, value`, short(sum), sum]);
    }
    if (lengths.norms) rows.push(["All of this length together, gradient norm", short(lengths.norms[length] ?? 0), lengths.norms[length] ?? 0]);
    const list = html("dl");
    for (const [term, said, value] of rows) {
      const shown = html("dd", {}, said);
      if (value !== null) shown.dataset.value = value;
      shown.dataset.term = term;
      list.append(html("div", {}, html("dt", {}, term), shown));
    }
    const python = `unbraid.paths.chosen_paths(form, x, masks=torch.tensor([[${this.choices.join(", ")}]]), target=${this.data.python})`;
    const code = html("pre", { tabIndex: 0 }, html("code", {}, python));
    this.place.querySelector(".picked").replaceChildren(html("h3", {}, "The path that you picked"), list, code);
  }
}

const range = (first, last) => Array.from({ length: last - first + 1 }, (_, place) => first + place);
for (const place of document.querySelectorAll(".braid")) new Braid(place);
