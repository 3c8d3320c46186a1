// One problem opened: what each iteration of each run made of it.

const KINDS = {
  rationale: "without a hint",
  rationalization: "with a hint",
  direct: "known answer",
  evaluation: "held-out",
};
const kindName = (kind) => KINDS[kind] ?? kind;
const readable = (name) => (name || "none").replaceAll("_", " ");
const verdictClass = (verdict) => ({ correct: "correct", unknown: "" })[verdict] ?? "wrong";

async function problemView(data, problem) {
  const [id] = await data.problems.rows.row(problem);
  const texts = await Promise.all(INDEX.runs.map((_, run) => data.texts.find(problem, run)));
  const isSame = texts.every((found) => found?.[0] === texts[0]?.[0] && found?.[1] === texts[0]?.[1]);
  const lives = element("div", { class: INDEX.runs.length > 1 ? "lives" : "" });
  for (let run = 0; run < INDEX.runs.length; run++) {
    const rows = [...data.samples.of(problem)].filter((row) => data.samples.run[row] === run);
    if (rows.length) lives.append(await life(data, problem, run, rows, texts[run], !isSame));
  }
  return element("div", {},
    element("h3", { id: "opened", tabindex: -1 }, "Problem ", visible(id)),
    factsOf(isSame ? texts[0] : null, readable(data.name("problems", "class", problem))), lives);
}

function factsOf(texts, problemClass) {
  const facts = element("dl", { class: "facts-of-problem" });
  const add = (name, text) => facts.append(element("dt", {}, name), element("dd", { dir: "auto" }, visible(text)));
  if (texts) add("Question", texts[0]);
  if (texts) add("Right answer", texts[1] || "not known");
  if (problemClass && problemClass !== "none") add("Class", problemClass);
  return facts;
}

async function life(data, problem, run, rows, texts, isOwn) {
  const { samples } = data;
  const prompts = texts && texts.slice(2);
  const box = element("section", { class: "life" });
  if (INDEX.runs.length > 1) box.append(element("h4", {}, `Run ${INDEX.runs[run].name}`));
  if (isOwn) box.append(factsOf(texts, ""));
  const columns = element("div", { class: "columns" });
  box.append(columns);
  const last = new Map(); // the attempt before, by kind and number
  let iteration = -1;
  let column;
  for (const row of rows) {
    if (samples.iteration[row] !== iteration) {
      iteration = samples.iteration[row];
      column = element("div", {}, element("h4", {}, iteration ? `Iteration ${iteration}` : "Base model"));
      columns.append(column);
    }
    const [completion, answer] = await samples.rows.row(row);
    const kind = data.name("samples", "kind", row);
    const number = samples.sample[row];
    const attempt = { row, iteration, kind, number, completion, answer,
      verdict: data.name("samples", "verdict", row) };
    const key = `${kind} ${number}`;
    // The first attempt with a hint is compared with the failed one without.
    const before = last.get(key) ?? (kind === "rationalization" ? last.get(`rationale ${number}`) : undefined);
    column.append(attemptView(data, problem, run, attempt, before, prompts));
    last.set(key, attempt);
  }
  return box;
}

function attemptView(data, problem, run, attempt, before, prompts) {
  const { samples } = data;
  const { row, kind, number, completion, answer, verdict } = attempt;
  const name = kindName(kind) + (number ? `, sample ${number + 1}` : "");
  const view = element("article", {}, element("h5", {}, `${name} `,
    element("span", { class: `badge ${verdictClass(verdict)}` }, readable(verdict))));
  const facts = [];
  const weight = samples.weight[row];
  const wrong = samples.is_wrong[row] ? ", as the wrong one of a pair" : "";
  if (weight > 0) facts.push(`Trained on with weight ${Number(weight.toFixed(4))}${samples.show_hint[row] ? ", hint shown" : ""}${wrong}.`);
  else if (weight === 0) facts.push(`Not trained on: ${readable(data.name("samples", "reason", row))}.`);
  for (const again of data.again.of(problem)) {
    const table = data.again;
    if (table.run[again] === run && table.sampled[again] === attempt.iteration
      && data.name("again", "kind", again) === kind && table.sample[again] === number) {
      facts.push(`Trained on again in iteration ${table.iteration[again]} with weight ${Number(table.weight[again].toFixed(4))}.`);
    }
  }
  facts.push(`${count(samples.tokens[row], "token")}${samples.truncated[row] ? ", cut off before its stop" : ""}.`);
  view.append(element("p", {}, facts.join(" ")));

  const place = findAnswer(completion, answer, INDEX.runs[run].answer_marker);
  const read = element("p", {}, "Answer read: ");
  if (answer === null) read.append("none.");
  else {
    const shown = answer.length > 200 ? `${answer.slice(0, 200)}…` : answer;
    read.append(element("bdi", { class: place ? "answer" : null }, visible(shown)));
    if (!place) read.append(" (not in these words in the completion)");
  }
  view.append(read);
  const pieces = before ? markedDifferences(before.completion, completion) : null;
  if (before) view.append(element("p", {}, changesText(attempt, before, pieces)));

  if (prompts) {
    const isHinted = kind === "rationalization" && prompts[1] !== null;
    const example = INDEX.runs[run][isHinted ? "few_shot_hinted" : "few_shot"];
    if (example) {
      view.append(element("details", {},
        element("summary", {}, `Worked examples before the prompt (${count(example.length, "character")})`),
        textBox("prompt", "Worked examples", visible(example))));
    }
    view.append(textBox("prompt", `Prompt, ${name}`, promptNodes(prompts[0], isHinted ? prompts[1] : null)));
  }
  const box = textBox("completion", `Completion, ${name}`);
  showCompletion(box, completion, place, pieces);
  view.append(box);
  return view;
}

// A text that may scroll, so it can have the focus.
function textBox(style, label, ...children) {
  return element("div", { class: `text ${style}`, role: "group", tabindex: 0, "aria-label": label, dir: "auto" }, ...children);
}

function changesText(attempt, before, pieces) {
  const other = `${before.iteration ? `iteration ${before.iteration}` : "the base model"}${before.kind === attempt.kind ? "" : `, ${kindName(before.kind)}`}`;
  if (before.completion === attempt.completion) return `The same completion as in ${other}.`;
  const changes = [];
  if (before.verdict !== attempt.verdict) changes.push(`verdict ${readable(before.verdict)} → ${readable(attempt.verdict)}`);
  if (before.answer !== attempt.answer) changes.push(`answer ${clipped(before.answer)} → ${clipped(attempt.answer)}`);
  changes.push(pieces ? "words marked below" : "words, too many to be marked");
  return `Compared with ${other}: ${changes.join("; ")}.`;
}

function clipped(answer) {
  if (answer === null) return "none";
  const text = answer.length > 60 ? `${answer.slice(0, 60)}…` : answer;
  // As text with controls in words, since it stands within a sentence.
  return visible(text).textContent;
}
