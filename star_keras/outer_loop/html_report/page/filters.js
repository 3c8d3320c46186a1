// The list of problems: filters, search, pages; and the way to one problem.

const PAGE_LENGTH = 50;
const CHANGES = {
  "": "any",
  right: "was wrong, became right",
  wrong: "was right, became wrong",
  hint: "right only with a hint",
};
if (INDEX.runs.length > 1) CHANGES.runs = "right in one run, wrong in another";

class Problems {
  constructor(data, app) {
    this.data = data;
    this.found = [];
    this.page = 0;
    this.search = 0; // number of the search under way
    this.fields = {};
    this.list = element("ul", { class: "list" });
    this.status = element("p", { class: "status", role: "status" });
    this.pages = element("div", { class: "pages" });
    const signs = `By iteration: ✓ correct, ✗ incorrect, ~ right answer after wrong steps, ? unparsed, – without a known answer; h with a hint${INDEX.runs.length > 1 ? "; | the next run" : ""}.`;
    this.browser = element("div", {}, this.form(), this.status,
      element("p", { class: "note", "aria-hidden": "true" }, signs), this.list, this.pages);
    this.life = element("div", { hidden: true });
    app.append(this.browser, this.life);
  }

  form() {
    const { data } = this;
    const iterations = [...new Set(data.samples.iteration)].sort((a, b) => a - b);
    const options = (column, label) => INDEX.names[column].map((name, code) => [code, label(name)]).filter(([, label]) => label !== "none");
    const form = element("form", { class: "filters", onsubmit: (event) => event.preventDefault() });
    const add = (name, title, choices) => {
      const select = element("select", { id: `filter-${name}`, onchange: () => this.update() },
        ...choices.map(([value, label]) => element("option", { value }, label)));
      this.fields[name] = select;
      form.append(element("div", {}, element("label", { for: select.id }, title), select));
    };
    const any = ["", "any"];
    if (INDEX.runs.length > 1) add("run", "Run", [any, ...INDEX.runs.map((run, number) => [number, run.name])]);
    add("class", "Class", [any, ...options("class", readable).sort((a, b) => a[1].localeCompare(b[1], "en", { numeric: true }))]);
    add("iteration", "Iteration", [any, ...iterations.map((number) => [number, number ? `${number}` : "base model"])]);
    add("kind", "Kind", [any, ...options("kind", kindName)]);
    add("verdict", "Verdict", [any, ...options("verdict", readable)]);
    add("change", "What happened", Object.entries(CHANGES));
    let waiting;
    const search = element("input", { type: "search", id: "filter-text", autocomplete: "off",
      oninput: () => { clearTimeout(waiting); waiting = setTimeout(() => this.update(), 250); } });
    this.fields.text = search;
    form.append(element("div", {}, element("label", { for: search.id }, "Search in ids, questions and answers"), search));
    const everywhere = element("input", { type: "checkbox", onchange: () => this.update() });
    this.fields.everywhere = everywhere;
    form.append(element("label", { class: "check" }, everywhere, "in completions too"));
    return form;
  }

  // Numbers of the chosen values; null for any.
  chosen() {
    const wanted = {};
    for (const name of ["run", "class", "iteration", "kind", "verdict"]) {
      const value = this.fields[name]?.value ?? "";
      wanted[name] = value === "" ? null : Number(value);
    }
    return { ...wanted, change: this.fields.change.value };
  }

  fits(problem, wanted) {
    const { problems, samples } = this.data;
    if (wanted.class !== null && problems.class[problem] !== wanted.class) return false;
    const rows = samples.of(problem);
    const has = (name, row) => wanted[name] === null || samples[name][row] === wanted[name];
    if (!rows.some((row) => ["run", "iteration", "kind", "verdict"].every((name) => has(name, row)))) return false;
    if (!wanted.change) return true;
    const runs = INDEX.runs.map((_, run) => run).filter((run) => wanted.run === null || wanted.run === run);
    const histories = runs.map((run) => this.history(rows, run));
    if (wanted.change === "runs") return this.runsDiffer(histories, wanted.iteration);
    return histories.some((history) => this.changed(history, wanted));
  }

  // Whether a run solved a problem, by iteration: maps without and with a hint.
  history(rows, run) {
    const { samples } = this.data;
    const history = { plain: new Map(), hinted: new Map() };
    for (const row of rows) {
      if (samples.run[row] !== run) continue;
      const map = this.data.name("samples", "kind", row) === "rationalization" ? history.hinted : history.plain;
      const right = this.data.name("samples", "verdict", row) === "correct";
      const iteration = samples.iteration[row];
      map.set(iteration, (map.get(iteration) ?? false) || right);
    }
    return history;
  }

  changed({ plain, hinted }, { change, iteration }) {
    if (change === "hint") {
      const at = iteration === null ? [...hinted.keys()] : [iteration];
      // Without an iteration: never right without a hint.
      const unaided = iteration === null ? [...plain.values()].some(Boolean) : plain.get(iteration);
      return !unaided && at.some((number) => hinted.get(number));
    }
    const attempts = [...plain].sort((a, b) => a[0] - b[0]);
    return attempts.some(([number, right], k) => k > 0
      && (iteration === null || number === iteration)
      && right !== attempts[k - 1][1] && right === (change === "right"));
  }

  // At an iteration, or at the last one of each run.
  runsDiffer(histories, iteration) {
    const results = histories.filter(({ plain }) => plain.size)
      .map(({ plain }) => plain.get(iteration ?? Math.max(...plain.keys())))
      .filter((right) => right !== undefined);
    return new Set(results).size > 1;
  }

  async update() {
    const search = ++this.search;
    this.list.setAttribute("aria-busy", "true");
    const isOver = () => search !== this.search;
    const wanted = this.chosen();
    let found = [];
    for (let problem = 0; problem < this.data.length; problem++) {
      if (this.fits(problem, wanted)) found.push(problem);
    }
    const text = this.fields.text.value.trim().toLowerCase();
    if (text) {
      this.status.textContent = "Searching…";
      const matches = await this.matches(text, isOver);
      if (isOver()) return;
      found = found.filter((problem) => matches.has(problem));
    }
    this.found = found;
    await this.turn(0);
  }

  async matches(text, isOver) {
    const matches = new Set();
    const holds = (value) => value !== null && value.toLowerCase().includes(text);
    await this.data.problems.rows.scan((problem, [id]) => {
      if (holds(id)) matches.add(problem);
    }, isOver);
    const { texts } = this.data;
    await texts.rows.scan((row, [question, answer]) => {
      if (holds(question) || holds(answer)) matches.add(texts.problem[row]);
    }, isOver);
    if (this.fields.everywhere.checked) {
      const { problem } = this.data.samples;
      await this.data.samples.rows.scan((row, [completion]) => {
        if (holds(completion)) matches.add(problem[row]);
      }, isOver);
    }
    return matches;
  }

  async turn(page) {
    this.page = page;
    this.list.setAttribute("aria-busy", "true");
    const search = this.search;
    const shown = this.found.slice(page * PAGE_LENGTH, (page + 1) * PAGE_LENGTH);
    const items = await Promise.all(shown.map((problem) => this.item(problem)));
    if (search !== this.search || page !== this.page) return;
    this.list.replaceChildren(...items);
    this.list.setAttribute("aria-busy", "false");
    const last = Math.max(0, Math.ceil(this.found.length / PAGE_LENGTH) - 1);
    const button = (label, to) => element("button",
      { type: "button", disabled: to < 0 || to > last, onclick: () => this.turnByButton(to, label) }, label);
    this.pages.hidden = !last;
    this.pages.replaceChildren(button("Previous page", page - 1),
      element("span", {}, `Page ${page + 1} of ${last + 1}`), button("Next page", page + 1));
    this.status.textContent = `${count(this.found.length, "problem")} of ${this.data.length.toLocaleString("en")}`;
  }

  async turnByButton(to, label) {
    await this.turn(to);
    const same = [...this.pages.querySelectorAll("button")].find((found) => found.textContent === label);
    (same.disabled ? this.pages.querySelector("button:enabled") : same)?.focus();
  }

  async item(problem) {
    const [id] = await this.data.problems.rows.row(problem);
    const run = this.fields.run?.value ? Number(this.fields.run.value) : null;
    const [question] = (await this.data.texts.find(problem, run)) ?? [""];
    return element("li", {},
      element("a", { href: await this.address(problem) }, visible(clip(id, 80))),
      element("span", { class: "question", dir: "auto" }, visible(clip(question, 160))),
      this.marks(problem, run));
  }

  // The verdicts of a problem in the order of the iterations.
  marks(problem, run) {
    const { samples } = this.data;
    const marks = element("span", { class: "marks" });
    const said = [];
    let last = null;
    for (const row of samples.of(problem)) {
      if (run !== null && samples.run[row] !== run) continue;
      if (samples.run[row] !== last) {
        if (last !== null) marks.append(element("span", { "aria-hidden": "true" }, "| "));
        last = samples.run[row];
        if (INDEX.runs.length > 1) said.push(`run ${INDEX.runs[last].name}`);
      }
      const verdict = this.data.name("samples", "verdict", row);
      const kind = this.data.name("samples", "kind", row);
      const sign = { correct: "✓", unparsed: "?", invalid_working: "~", unknown: "–" }[verdict] ?? "✗";
      const hint = kind === "rationalization" ? "h" : "";
      marks.append(element("span", { class: `mark ${verdictClass(verdict)}`, "aria-hidden": "true" }, hint + sign), " ");
      said.push(`iteration ${samples.iteration[row]}${hint && " with a hint"}: ${readable(verdict)}`);
    }
    marks.append(element("span", { class: "hidden" }, said.join(", ")));
    return marks;
  }

  // === One problem ===

  async address(problem) {
    const [id] = await this.data.problems.rows.row(problem);
    return `#problem=${problem},${encodeURIComponent(this.title(problem, id))}`;
  }

  title(problem, id) {
    return `${this.data.name("problems", "split", problem)} ${id}`;
  }

  async route() {
    const match = /^#problem=(\d+),(.*)$/s.exec(location.hash);
    this.browser.hidden = Boolean(match);
    this.life.hidden = !match;
    if (!match) {
      this.life.replaceChildren();
      const came = this.list.querySelector(`a[href="${CSS.escape(this.from ?? "")}"]`);
      if (this.from && location.hash === "#problems") (came ?? this.fields.text).focus();
      this.from = null;
      return;
    }
    this.from = location.hash;
    await this.open(Number(match[1]), decoded(match[2]));
  }

  // A problem by its number, or by its title if a report has been written again.
  async open(number, title) {
    const hash = location.hash;
    const { rows } = this.data.problems;
    const row = number < this.data.length ? await rows.row(number) : null;
    let problem = row && this.title(number, row[0]) === title ? number : -1;
    if (problem < 0) {
      await rows.scan((other, [id]) => {
        if (problem < 0 && this.title(other, id) === title) problem = other;
      }, () => problem >= 0);
    }
    const back = element("a", { href: "#problems" }, "All problems");
    if (problem < 0) {
      this.life.replaceChildren(element("p", {}, "There is no such problem in this report. ", back));
      return;
    }
    const view = await problemView(this.data, problem);
    const at = this.found.indexOf(problem);
    const link = async (label, to) => (to >= 0 && to < this.found.length
      ? element("a", { href: await this.address(this.found[to]) }, label) : null);
    const ways = element("nav", { "aria-label": "Problem" }, back,
      at >= 0 ? await link("Previous problem", at - 1) : null,
      at >= 0 ? await link("Next problem", at + 1) : null);
    if (hash !== location.hash) return;
    this.life.replaceChildren(ways, view);
    const heading = document.getElementById("opened");
    heading.focus({ preventScroll: true });
    ways.scrollIntoView();
  }
}

function clip(text, length) {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function start() {
  const app = document.getElementById("app");
  try {
    const problems = new Problems(await readData(), app);
    await problems.update();
    addEventListener("hashchange", () => problems.route());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !problems.life.hidden) location.hash = "#problems";
    });
    await problems.route();
    document.body.dataset.ready = "true";
  } catch (error) {
    app.replaceChildren(element("p", { class: "faults", role: "alert" },
      `The problems cannot be shown: ${error}. This needs Chrome 80, Firefox 113, Safari 16.4 or newer.`));
  }
}

start();
