// Texts of models: control characters made visible, answers, hints and differences.

const LONG = 20000;
const TAIL = 3000;
const MOST_CELLS = 2e6;
const LEAST_KEPT = 0.3; // share of the characters in words that stay
// Controls, marks of direction and other characters that would be invisible.
const CONTROL = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb])/u;

function visible(text) {
  const parts = document.createDocumentFragment();
  text.split(CONTROL).forEach((part, index) => {
    if (index % 2) {
      const code = part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      parts.append(element("span", { class: "control" }, `U+${code}`));
    } else if (part) {
      parts.append(part);
    }
  });
  return parts;
}

// The place of an answer in a completion, [start, end], or null if it is not there in
// these words. It is read behind the last marker, or else it is the last of its kind.
function findAnswer(completion, answer, marker) {
  if (answer === null || !answer.trim()) return null;
  const thoughts = completion.lastIndexOf("</think>");
  const begin = thoughts < 0 ? 0 : thoughts + "</think>".length;
  if (answer.length > LONG) return null;
  const words = answer.trim().split(/\s+/u).map((word) =>
    // Numbers are read without the commas between their digits.
    [...word].map((letter) => letter.replace(/[\\^$.*+?()[\]{}|/-]/gu, "\\$&"))
      .join("\0").replace(/(?<=\d)\0(?=\d)/gu, "[,\u202f\u00a0]?").replaceAll("\0", ""))
    .join("\\s+");
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])${words}(?![\\p{L}\\p{N}])`, "giu");
  const at = marker ? completion.lastIndexOf(marker) : -1;
  const behind = at >= begin ? at + marker.length : -1;
  let last = null;
  pattern.lastIndex = behind >= 0 ? behind : begin;
  for (let match; (match = pattern.exec(completion));) {
    last = [match.index, match.index + match[0].length];
    if (behind >= 0) return last;
  }
  if (last || behind < 0) return last;
  return findAnswer(completion, answer, "");
}

// Words of `text` beside those of `before`: [operation, text] with -1, 0 or 1.
function differences(before, text) {
  const words = (whole) => whole.match(/\s|[^\s]+/gu) ?? [];
  const [a, b] = [words(before), words(text)];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const [n, m] = [a.length - head - tail, b.length - head - tail];
  const found = b.slice(0, head).map((word) => [0, word]);
  const push = (operation, word) => found.push([operation, word]);
  if (n * m > MOST_CELLS) {
    push(-1, a.slice(head, head + n).join(""));
    push(1, b.slice(head, head + m).join(""));
  } else {
    // Lengths of the longest common subsequences of the rests.
    const width = m + 1;
    const lengths = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        lengths[i * width + j] = a[head + i] === b[head + j]
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
      }
    }
    let [i, j] = [0, 0];
    while (i < n || j < m) {
      if (i < n && j < m && a[head + i] === b[head + j]) {
        push(0, b[head + j]);
        i++, j++;
      } else if (j === m || (i < n && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
        push(-1, a[head + i++]);
      } else {
        push(1, b[head + j++]);
      }
    }
  }
  b.slice(b.length - tail).forEach((word) => push(0, word));
  const joined = [];
  for (const [operation, word] of found) {
    const last = joined[joined.length - 1];
    if (last && last[0] === operation) last[1] += word;
    else if (word) joined.push([operation, word]);
  }
  return joined;
}

// A completion with its answer underlined and its differences from an earlier one.
function completionNodes(completion, answer, pieces) {
  const nodes = document.createDocumentFragment();
  let at = 0;
  for (const [operation, text] of pieces) {
    if (operation < 0) {
      nodes.append(element("del", {}, visible(text)));
      continue;
    }
    const cuts = [0, text.length];
    for (const place of answer ?? []) {
      if (place > at && place < at + text.length) cuts.push(place - at);
    }
    cuts.sort((x, y) => x - y);
    for (let k = 0; k + 1 < cuts.length; k++) {
      const [from, to] = [cuts[k], cuts[k + 1]];
      if (from === to) continue;
      const isAnswer = answer && at + from >= answer[0] && at + to <= answer[1];
      const part = isAnswer
        ? element("span", { class: "answer" }, visible(text.slice(from, to)))
        : visible(text.slice(from, to));
      nodes.append(operation > 0 ? element("ins", {}, part) : part);
    }
    at += text.length;
  }
  return nodes;
}

// The differences from an earlier completion, or null where marks would be no help.
function markedDifferences(before, completion) {
  if (Math.max(before.length, completion.length) > LONG) return null;
  const pieces = differences(before, completion);
  const kept = pieces.reduce((sum, [operation, text]) => sum + (operation ? 0 : text.trim().length), 0);
  return kept >= LEAST_KEPT * Math.max(before.trim().length, completion.trim().length) ? pieces : null;
}

function showCompletion(box, completion, answer, pieces) {
  if (completion.length <= LONG) {
    box.append(completionNodes(completion, answer, pieces ?? [[0, completion]]));
    return;
  }
  const [head, tail] = [completion.slice(0, LONG - TAIL), completion.slice(-TAIL)];
  const start = completion.length - TAIL;
  const rest = completion.length - LONG;
  const button = element("button", {
    type: "button",
    onclick: () => {
      box.replaceChildren(completionNodes(completion, answer, [[0, completion]]));
      box.focus();
    },
  }, `Show ${count(rest, "more character")}`);
  const shift = answer && answer[0] >= start ? answer.map((place) => place - start) : null;
  box.append(visible(head), "\n", button, "\n", completionNodes(tail, shift, [[0, tail]]));
}

// A prompt with its hint: whatever the prompt without a hint does not have.
function promptNodes(plain, hinted) {
  const text = hinted ?? plain;
  if (hinted === null || hinted === plain) return visible(text);
  let head = 0;
  while (head < plain.length && plain[head] === hinted[head]) head++;
  let tail = 0;
  const most = Math.min(plain.length, hinted.length) - head;
  while (tail < most && plain[plain.length - 1 - tail] === hinted[hinted.length - 1 - tail]) tail++;
  const nodes = document.createDocumentFragment();
  nodes.append(
    visible(hinted.slice(0, head)),
    element("mark", { class: "hint" }, visible(hinted.slice(head, hinted.length - tail))),
    visible(hinted.slice(hinted.length - tail)),
  );
  return nodes;
}
