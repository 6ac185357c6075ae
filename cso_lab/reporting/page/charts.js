"use strict";
// Draws a chart when it comes near the window, and all before printing, in the colours of the theme: Okabe and Ito's palette,
// darker on white and lighter on black where it would be faint. The ninth colour is the first again with other dashes.
const PALETTE = {
  light: ["#0072b2", "#d55e00", "#00805d", "#b0568f", "#b37a00", "#2a8fc7", "#5b5b5b", "#7a3b00"],
  dark: ["#56b4e9", "#f0803c", "#2fc29a", "#e09ac6", "#e6b43c", "#9ad2f5", "#c4c9cf", "#f0e442"],
};
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const PATTERNS = ["", "/", "x", ".", "-", "|"];
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
const PRINTED_WIDTH = 680;

let printing = false;

function dark() {
  if (printing) return false;
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function colours() {
  const night = dark();
  return {
    palette: PALETTE[night ? "dark" : "light"],
    ink: night ? "#e6e8eb" : "#1b1f24",
    line: night ? "#333c46" : "#d0d7de",
    empty: night ? "#1a2027" : "#f6f8fa",
  };
}

function painted(trace, { palette, ink, line, empty }) {
  const { colour, scale, band } = trace.meta || {};
  if (scale) return { ...trace, colorscale: [[0, empty], [1, palette[0]]] };
  if (colour === undefined) return trace;
  const paint = palette[colour % palette.length];
  if (band) return { ...trace, fillcolor: `${paint}2b`, line: { width: 0 } };
  const turn = Math.floor(colour / palette.length);
  const marker = { ...trace.marker, color: paint };
  if (trace.type === "bar" && turn) marker.pattern = { shape: PATTERNS[turn % PATTERNS.length], fgcolor: ink };
  const error_x = trace.error_x && { ...trace.error_x, color: trace.type === "bar" ? ink : paint, thickness: 1.5 };
  return { ...trace, marker, error_x, line: { ...trace.line, color: paint, width: 2, dash: trace.line?.dash || DASHES[turn % DASHES.length] } };
}

function dressed(layout, width, { ink, line }) {
  const axis = { automargin: true, gridcolor: line, zerolinecolor: line, linecolor: line };
  const whole = {
    margin: { l: 8, r: 24, t: 16, b: 8 },
    font: { family: "system-ui, sans-serif", size: 12, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    dragmode: width < 640 ? false : "zoom",
    ...layout,
    shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: { color: ink, width: 1 } })),
  };
  for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) whole[name] = { ...axis, ...layout[name] };
  if (printing) whole.width = PRINTED_WIDTH;
  return whole;
}

function draw(figure) {
  figure.figures ??= JSON.parse(figure.querySelector("script").textContent);
  const choice = figure.querySelector("select");
  const { data, layout } = figure.figures[choice ? choice.value : 0];
  const theme = colours();
  const plot = figure.querySelector(".plot");
  figure.dataset.drawn = "yes";
  return Plotly.react(plot, data.map((trace) => painted(structuredClone(trace), theme)), dressed(structuredClone(layout), plot.clientWidth, theme), CONFIG);
}

const figures = [...document.querySelectorAll(".chart")];
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    draw(target);
  }
}, { rootMargin: "500px" });

for (const figure of figures) {
  figure.querySelector("select")?.addEventListener("change", () => draw(figure));
  watcher.observe(figure);
}

function redraw() { figures.filter((figure) => figure.dataset.drawn).forEach(draw); }

document.addEventListener("theme", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => { printing = true; figures.forEach(draw); });
addEventListener("afterprint", () => { printing = false; figures.forEach(draw); });
