// Columns of numbers, and texts in compressed chunks that are opened when needed.

const INDEX = JSON.parse(document.getElementById("index").textContent);
const OPEN_CHUNKS = 64;

async function decompressed(script) {
  const bytes = Uint8Array.from(atob(script.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream);
}

async function readColumns(stream) {
  const columns = {};
  for (const script of document.querySelectorAll(`script.column[data-of="${stream}"]`)) {
    const type = { Int32Array, Float32Array }[script.dataset.type];
    columns[script.dataset.name] = new type(await (await decompressed(script)).arrayBuffer());
    script.remove();
  }
  return columns;
}

// The rows of a stream.
class Rows {
  constructor(stream) {
    this.scripts = [...document.querySelectorAll(`script.chunk[data-of="${stream}"]`)];
    this.firsts = INDEX.firsts[stream];
    this.open = new Map(); // the chunk used last comes last
  }

  chunk(number) {
    const found = this.open.get(number) ?? decompressed(this.scripts[number]).then((it) => it.json());
    this.open.delete(number);
    this.open.set(number, found);
    if (this.open.size > OPEN_CHUNKS) this.open.delete(this.open.keys().next().value);
    return found;
  }

  // The row of a number.
  async row(number) {
    let [low, high] = [0, this.firsts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.firsts[middle] <= number) low = middle;
      else high = middle - 1;
    }
    return (await this.chunk(low))[number - this.firsts[low]];
  }

  // Calls visit(number, row) for all rows; ends early once isOver().
  async scan(visit, isOver = () => false) {
    for (let chunk = 0; chunk < this.scripts.length && !isOver(); chunk++) {
      (await this.chunk(chunk)).forEach((row, index) => visit(this.firsts[chunk] + index, row));
    }
  }
}

// The rows of a column's values: rows(value) is a subarray of all row numbers.
function grouped(values, length) {
  const starts = new Int32Array(length + 1);
  for (const value of values) starts[value + 1]++;
  for (let k = 0; k < length; k++) starts[k + 1] += starts[k];
  const next = starts.slice();
  const order = new Int32Array(values.length);
  values.forEach((value, row) => { order[next[value]++] = row; });
  return (value) => order.subarray(starts[value], starts[value + 1]);
}

async function readData() {
  const data = {};
  for (const stream of ["problems", "texts", "samples", "again"]) {
    data[stream] = await readColumns(stream);
    data[stream].rows = new Rows(stream);
  }
  const length = INDEX.lengths.problems;
  for (const stream of ["texts", "samples", "again"]) {
    data[stream].of = grouped(data[stream].problem, length);
  }
  data.length = length;
  // Question, answer, prompt and hinted prompt of a problem in a run, or null.
  data.texts.find = async (problem, run) => {
    const found = data.texts.of(problem).find((row) => run === null || data.texts.run[row] === run);
    return found === undefined ? null : data.texts.rows.row(found);
  };
  data.name = (stream, column, row) => INDEX.names[column][data[stream][column][row]];
  return data;
}
