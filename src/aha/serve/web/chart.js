// Curves as SVG, with the values under the pointer.

import { h, svg } from "./dom.js";

const WIDTH = 420;
const HEIGHT = 190;
const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const COLOURS = 8;

export function shown(value, percent) {
  if (percent) return `${(100 * value).toFixed(value !== 0 && Math.abs(value) < 0.0995 ? 1 : 0)}%`;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1);
  return value.toLocaleString("en", { maximumFractionDigits: size < 1 ? 4 : size < 100 ? 2 : 0 });
}

/** Round numbers from low to high, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, index) => (first + index) * step);
}

function bounds(points, percent) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  let [low, high] = percent ? [0, 1] : [Math.min(...ys), Math.max(...ys)];
  if (low > 0 && low < 0.5 * high) low = 0;
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  return { left, right: right === left ? left + 1 : right, low, high };
}

/** A figure for a panel: `title`, `percent`, and `series` of (step, value) by name. */
export function chart({ title, percent, series }) {
  const curves = Object.entries(series);
  const points = curves.flatMap(([, own]) => own);
  const { left, right, low, high } = bounds(points, percent);
  const x = (value) => LEFT + ((value - left) / (right - left)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const colour = (number) => `var(--c${number % COLOURS})`;
  const rule = svg("line", { class: "rule", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    ticks(low, high, 4).map((value) => [
      svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, shown(value, percent)),
    ]),
    ticks(left, right, 5).map((value) => svg("text", { x: x(value), y: HEIGHT - 4, "text-anchor": "middle" }, shown(value))),
    curves.map(([, own], number) => {
      const path = own.map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      const dots = own.length < 25 ? own.map(([step, value]) => svg("circle", { cx: x(step), cy: y(value), r: 2.2, fill: colour(number) })) : [];
      return [svg("path", { class: "curve", d: path, stroke: colour(number) }), dots];
    }),
    rule);
  const legend = h("div", { class: "legend" });
  const tell = (step) => legend.replaceChildren(
    ...(step === null ? [] : [h("b", {}, `step ${shown(step)}`)]),
    ...curves.map(([name, own], number) => {
      const at = step === null ? own.at(-1) : own.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
      const dot = h("i");
      dot.style.background = colour(number);
      return h("span", {}, dot, `${name} ${shown(at[1], percent)}`);
    }));
  tell(null);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const at = left + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (right - left);
    const nearest = points.reduce((best, [step]) => (Math.abs(step - at) < Math.abs(best - at) ? step : best), points[0][0]);
    rule.setAttribute("x1", x(nearest));
    rule.setAttribute("x2", x(nearest));
    rule.setAttribute("visibility", "visible");
    tell(nearest);
  });
  drawing.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    tell(null);
  });
  return h("figure", { class: "figure" }, h("h3", {}, title), drawing, legend);
}
