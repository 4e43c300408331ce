// Draws every figure of the page from the JSON that was served with it. Beside each stands a table with its numbers.

const Plot = globalThis.Plot;

const DRAW = { forest, series, shares };
const SYMBOLS = ["circle", "square", "diamond", "triangle"];

export function drawCharts(root) {
  if (!Plot) return;
  for (const figure of root.querySelectorAll("figure[data-chart]")) {
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const drawn = figure.querySelector(".drawn");
    const draw = () => drawn.replaceChildren(DRAW[figure.dataset.chart](data, Math.max(280, drawn.clientWidth)));
    if (figure.dataset.drawn) continue;
    figure.dataset.drawn = "1";
    draw();
    let width = drawn.clientWidth;
    new ResizeObserver(() => {
      if (drawn.clientWidth === width) return;
      width = drawn.clientWidth;
      draw();
    }).observe(drawn);
  }
}

function color(name) {
  return `var(--${name})`;
}

function frame(width, options) {
  return Plot.plot({ className: "plot", width, ...options });
}

// One line for each metric and treatment: the effect, its always-valid interval, and no effect in the middle.
function forest({ rows, unit }, width) {
  const left = Math.min(220, width * 0.34);
  return frame(width, {
    ariaLabel: "Effect of each treatment on each metric, with its interval. The table below has the numbers.",
    height: 56 + rows.length * 34,
    marginLeft: left,
    marginRight: 16,
    marginBottom: 40,
    x: { label: `difference to the control, ${unit}`, grid: true, nice: true, labelAnchor: "center", labelArrow: "none" },
    y: { domain: rows.map((row) => row.label), label: null, tickSize: 0 },
    marks: [
      Plot.ruleX([0], { stroke: color("edge") }),
      Plot.ruleY(rows, { y: "label", x1: "low", x2: "high", stroke: (row) => color(row.color), strokeWidth: 2 }),
      Plot.dot(rows, {
        y: "label", x: "effect", r: 5, fill: (row) => color(row.color), symbol: (row) => SYMBOLS[row.symbol] ?? "circle",
      }),
    ],
  });
}

// The estimate by day, in its always-valid band.
function series({ lines, unit }, width) {
  const rows = lines.flatMap((line) => line.rows.map((row) => ({ ...row, ...line, rows: undefined, day: new Date(row.day) })));
  return frame(width, {
    ariaLabel: "Running estimate of the effect by day, with its band. The table below has the numbers.",
    height: 280,
    marginLeft: 56,
    marginBottom: 36,
    x: { label: null, type: "utc", ticks: Math.min(rows.length, Math.max(2, Math.floor(width / 110))) },
    y: { label: `difference to the control, ${unit}`, grid: true, nice: true, labelArrow: "none" },
    marks: [
      Plot.areaY(rows, { x: "day", y1: "low", y2: "high", z: "label", fill: (row) => color(row.color), fillOpacity: 0.16 }),
      Plot.ruleY([0], { stroke: color("edge") }),
      Plot.lineY(rows, { x: "day", y: "effect", z: "label", stroke: (row) => color(row.color), strokeWidth: 2 }),
      Plot.dot(rows, { x: "day", y: "effect", r: 3, fill: (row) => color(row.color), symbol: (row) => SYMBOLS[row.symbol] ?? "circle" }),
    ],
  });
}

// Planned shares as marks on the observed ones.
function shares({ rows }, width) {
  const left = Math.min(160, width * 0.34);
  return frame(width, {
    ariaLabel: "Observed share of each variation, with the planned one as a line. The table below has the numbers.",
    height: 52 + rows.length * 34,
    marginLeft: left,
    marginBottom: 40,
    x: { label: "share of subjects, %", domain: [0, Math.max(...rows.flatMap((row) => [row.planned, row.observed]), 10) * 1.1], grid: true, labelAnchor: "center", labelArrow: "none" },
    y: { domain: rows.map((row) => row.label), label: null, tickSize: 0 },
    marks: [
      Plot.barX(rows, { y: "label", x: "observed", fill: (row) => color(row.color), insetTop: 6, insetBottom: 6 }),
      Plot.tickX(rows, { y: "label", x: "planned", stroke: color("text"), strokeWidth: 3 }),
    ],
  });
}
