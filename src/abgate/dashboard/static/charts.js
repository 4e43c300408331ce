// Draws every figure of the page from the JSON that was served with it. Beside each stands a table with its numbers.

const Plot = globalThis.Plot;

const DRAW = { days, forest, series, shares };
const SYMBOLS = ["circle", "square", "diamond", "triangle"];
const TONES = { good: "good", bad: "bad", calm: "control" };
const UNITS = { share: ["percentage points", 100], seconds: ["seconds", 1] };
const CHARACTER = 7.5;

export function drawCharts(root) {
  if (!Plot) return;
  for (const figure of root.querySelectorAll("figure[data-chart]")) {
    if (figure.dataset.drawn) continue;
    figure.dataset.drawn = "1";
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const drawn = figure.querySelector(".drawn");
    let width = drawn.clientWidth;
    const draw = () => {
      const svg = DRAW[figure.dataset.chart](data, Math.max(260, width));
      // One image with one label: what is in it, the table says.
      svg.setAttribute("role", "img");
      for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
      drawn.replaceChildren(svg);
    };
    draw();
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

function symbol(row) {
  return SYMBOLS[row.symbol] ?? "circle";
}

// Labels of rows on the left, cut to the room that there is.
function rowLabels(rows, width) {
  const longest = Math.max(...rows.map((row) => row.label.length));
  const room = Math.min(longest * CHARACTER + 12, width * 0.4);
  const most = Math.floor((room - 12) / CHARACTER);
  const cut = (text) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  return { room, axis: { domain: rows.map((_, index) => index), tickFormat: (index) => cut(rows[index].label), label: null, tickSize: 0 } };
}

// How far a forest reaches to the left and to the right: as far as the first metric, every margin and most of the
// others. What would make all the rest narrow is cut.
function reach(rows) {
  const ends = rows.map((row) => Math.max(Math.abs(row.low), Math.abs(row.high)));
  const middle = ends.toSorted((a, b) => a - b)[Math.floor(ends.length / 2)];
  const most = Math.max(1.1 * ends[0], 2 * middle, ...rows.map((row) => 1.3 * Math.abs(row.margin ?? 0)), 1e-6);
  const marks = [0, ...rows.flatMap((row) => [row.low, row.high, row.margin ?? 0])];
  const [low, high] = [Math.max(-most, Math.min(...marks)), Math.min(most, Math.max(...marks))];
  const rest = 0.08 * (high - low);
  return [Math.max(-most, low - rest), Math.min(most, high + rest)];
}

// One line for each metric and treatment: the effect and its always-valid interval, no effect in the middle, and the
// margin where there is one. An interval that reaches far beyond all effects ends in an arrow.
function forest({ rows }, width) {
  const { room, axis } = rowLabels(rows, width);
  const [from, to] = reach(rows);
  const inside = (x) => Math.max(from, Math.min(to, x));
  const numbered = rows.map((row, index) => ({ ...row, index, left: inside(row.low), right: inside(row.high) }));
  const shown = numbered.filter((row) => row.effect >= from && row.effect <= to);
  const tone = (row) => color(TONES[row.tone]);
  const told = (row) => `${row.effect > 0 ? "+" : "−"}${Math.abs(row.effect).toFixed(0)} %`;
  // An arrow where an interval is cut, and the number of an effect that is not on the chart.
  const cut = (x, isBeyond, anchor, arrow, dx) => [
    Plot.text(numbered.filter((row) => isBeyond(row.low) || isBeyond(row.high)), { y: "index", x: () => x, text: () => arrow, fill: tone, textAnchor: anchor, dx }),
    Plot.text(numbered.filter((row) => isBeyond(row.effect)), { y: "index", x: () => x, text: told, fill: tone, textAnchor: anchor, dy: -9 }),
  ];
  return frame(width, {
    ariaLabel: "Each effect with its interval, in percent of the control’s value. The table has the numbers.",
    height: 58 + rows.length * 30,
    marginLeft: room,
    marginRight: 20,
    marginBottom: 40,
    x: { label: "difference, % of the control’s value", domain: [from, to], ticks: Math.max(3, Math.floor(width / 110)), grid: true, labelAnchor: "center", labelArrow: "none" },
    y: { ...axis, type: "band" },
    marks: [
      Plot.ruleX([0], { stroke: color("edge") }),
      Plot.tickX(numbered.filter((row) => row.margin), { y: "index", x: "margin", stroke: color("text"), strokeWidth: 2, strokeDasharray: "3 2" }),
      Plot.ruleY(numbered, { y: "index", x1: "left", x2: "right", stroke: tone, strokeWidth: 2.5 }),
      ...cut(from, (x) => x < from, "start", "◂", -5),
      ...cut(to, (x) => x > to, "end", "▸", 5),
      Plot.dot(shown, { y: "index", x: "effect", r: 5, fill: tone, symbol }),
    ],
  });
}

function byDay(rows, width) {
  const days = new Set(rows.map((row) => row.day)).size;
  return { label: null, type: "utc", ticks: Math.min(days, Math.max(2, Math.floor(width / 90))) };
}

// The estimate by day, in its always-valid band. What the first days do not know is cut off.
function series({ lines, unit }, width) {
  const [words, scale] = UNITS[unit] ?? [unit, 1];
  const rows = lines.flatMap(({ label, ...line }) =>
    line.rows.map((row) => ({
      label, color: line.color, symbol: line.symbol, day: new Date(row.day), isAlone: line.rows.length === 1,
      effect: row.effect * scale, low: row.low * scale, high: row.high * scale,
    })));
  const last = rows.at(-1).day.getTime();
  const latest = rows.filter((row) => row.day.getTime() === last);
  const known = latest.flatMap((row) => [row.effect - 2.5 * (row.effect - row.low), row.effect + 2.5 * (row.high - row.effect), 0]);
  const domain = [Math.min(...known), Math.max(...known)];
  const bounded = rows.map((row) => ({ ...row, low: Math.max(row.low, domain[0]), high: Math.min(row.high, domain[1]) }));
  return frame(width, {
    ariaLabel: "Running estimate of the effect by day, with its band. The table has the numbers.",
    height: 280,
    marginTop: 28,
    marginLeft: 48,
    marginRight: 16,
    marginBottom: 30,
    clip: true,
    x: byDay(rows, width),
    y: { label: `difference to the control, ${words}`, domain, grid: true, nice: true, labelArrow: "none" },
    marks: [
      Plot.areaY(bounded, { x: "day", y1: "low", y2: "high", z: "label", fill: (row) => color(row.color), fillOpacity: 0.16 }),
      Plot.ruleY([0], { stroke: color("edge") }),
      // A first day has no band yet, but an interval like every other.
      Plot.ruleX(bounded.filter((row) => row.isAlone), { x: "day", y1: "low", y2: "high", stroke: (row) => color(row.color), strokeWidth: 2.5 }),
      Plot.lineY(rows, { x: "day", y: "effect", z: "label", stroke: (row) => color(row.color), strokeWidth: 2, clip: true }),
      Plot.dot(rows, { x: "day", y: "effect", r: 3.5, fill: (row) => color(row.color), symbol, clip: true }),
    ],
  });
}

// New subjects by day, the variations upon each other.
function days({ rows }, width) {
  const dated = rows.map((row) => ({ ...row, day: new Date(row.day) }));
  const most = Math.max(...globalThis.d3.rollup(rows, (day) => globalThis.d3.sum(day, (row) => row.n), (row) => row.day).values());
  return frame(width, {
    ariaLabel: "New subjects of each variation by day. The table has the numbers.",
    height: 200,
    marginTop: 28,
    marginLeft: 48,
    marginRight: 16,
    marginBottom: 30,
    x: byDay(rows, width),
    // No more ticks than subjects: half of one is none.
    y: { label: "subjects", grid: true, labelArrow: "none", ticks: Math.min(5, most) },
    marks: [
      Plot.rectY(dated, { x: "day", interval: "day", y: "n", fill: (row) => color(row.color), insetLeft: 1, insetRight: 1 }),
      Plot.ruleY([0], { stroke: color("edge") }),
    ],
  });
}

// Planned shares as marks on the observed ones.
function shares({ rows }, width) {
  const { room, axis } = rowLabels(rows, width);
  const numbered = rows.map((row, index) => ({ ...row, index }));
  return frame(width, {
    ariaLabel: "Observed share of each variation, with the planned one as a line. The table has the numbers.",
    height: 52 + rows.length * 30,
    marginLeft: room,
    marginRight: 20,
    marginBottom: 40,
    x: { label: "share of subjects, %", domain: [0, Math.min(100, Math.max(...rows.flatMap((row) => [row.planned, row.observed]), 10) * 1.1)], grid: true, labelAnchor: "center", labelArrow: "none" },
    y: axis,
    marks: [
      Plot.barX(numbered, { y: "index", x: "observed", fill: (row) => color(row.color), insetTop: 2, insetBottom: 2 }),
      Plot.tickX(numbered, { y: "index", x: "planned", stroke: color("text"), strokeWidth: 3 }),
    ],
  });
}
