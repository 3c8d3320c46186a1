// The value under the pointer, and values by arrow keys.

function setUpChart(figure) {
  const svg = figure.querySelector(":scope > svg");
  const output = figure.querySelector(".value");
  const lines = [...svg.querySelectorAll(".line")].map((line) => [...line.querySelectorAll(".point")]);
  const points = lines.flat();
  const place = (point) => [Number(point.getAttribute("cx")), Number(point.getAttribute("cy"))];
  let shown = null;

  function show(point) {
    shown?.classList.remove("shown");
    shown = point;
    output.classList.toggle("shown", point !== null);
    if (!point) return;
    point.classList.add("shown");
    output.textContent = point.getAttribute("aria-label");
    const box = point.getBoundingClientRect();
    const outer = figure.getBoundingClientRect();
    const half = output.offsetWidth / 2;
    const x = box.x + box.width / 2 - outer.x;
    output.style.left = `${Math.max(half, Math.min(outer.width - half, x))}px`;
    output.style.top = `${box.y - outer.y}px`;
  }

  svg.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let nearest = null;
    let least = 40 ** 2;
    for (const point of points) {
      const [x, y] = place(point);
      const distance = (x - at.x) ** 2 + (y - at.y) ** 2;
      // Of points at one place the last one is on top.
      if (distance <= least) [nearest, least] = [point, distance];
    }
    show(nearest);
  });
  svg.addEventListener("pointerleave", () => show(null));

  // One stop of the Tab key a chart.
  function enter(point) {
    for (const other of points) other.setAttribute("tabindex", other === point ? 0 : -1);
  }
  enter(points[points.length - 1]);
  svg.addEventListener("focusin", (event) => { show(event.target); enter(event.target); });
  svg.addEventListener("focusout", () => show(null));
  svg.addEventListener("keydown", (event) => {
    const line = lines.findIndex((found) => found.includes(event.target));
    if (line < 0) return;
    const index = lines[line].indexOf(event.target);
    const iteration = event.target.dataset.iteration;
    const beside = (step) => {
      for (let k = line + step; k >= 0 && k < lines.length; k += step) {
        const point = lines[k].find((found) => found.dataset.iteration === iteration);
        if (point) return point;
      }
    };
    const target = {
      ArrowLeft: () => lines[line][index - 1],
      ArrowRight: () => lines[line][index + 1],
      ArrowUp: () => beside(-1),
      ArrowDown: () => beside(1),
      Home: () => lines[line][0],
      End: () => lines[line][lines[line].length - 1],
    }[event.key]?.();
    if (target) {
      event.preventDefault();
      target.focus();
    }
  });
}

document.querySelectorAll(".chart").forEach(setUpChart);
