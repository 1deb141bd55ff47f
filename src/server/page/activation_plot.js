// The activation function of Learn's page on the MLP: every neuron before it and after it.
import { createElement, css, diverging, rgb } from "./drawing.js";
import { ticks } from "./loss_curve.js";

const MARGIN = { left: 40, right: 10, top: 24, bottom: 38 };
const RADIUS = 2.5;

// The points (x, y) with axes and their numbers; all points are inside.
export function activationPlot(x, y) {
  const label = "Neurons before and after the curve";
  const canvas = createElement("canvas", "curve", "", { role: "img", "aria-label": label });
  const width = Math.min(640, document.getElementById("lesson").clientWidth || 640);
  const height = Math.round(Math.max(220, width * 0.45));
  const scale = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [width, height].map((size) => Math.round(size * scale));
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const [low, high] = [Math.min(-3, ...x), Math.max(3, ...x)];
  const [bottom, top] = [Math.min(-0.5, ...y), Math.max(3, ...y)];
  const [plotWidth, plotHeight] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
  const toX = (value) => MARGIN.left + ((value - low) / (high - low)) * plotWidth;
  const toY = (value) => MARGIN.top + ((top - value) / (top - bottom)) * plotHeight;
  const [dim, line] = ["dim", "line"].map((name) => css(rgb(name)));
  const rule = (x0, y0, x1, y1, color) => {
    context.strokeStyle = color;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  };
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  context.fillStyle = dim;
  const number = (value) => String(value).replace("-", "−");
  context.textAlign = "center";
  for (const tick of ticks(low, high, width / 80)) {
    rule(toX(tick), MARGIN.top, toX(tick), height - MARGIN.bottom, tick ? line : dim);
    context.fillText(number(tick), toX(tick), height - MARGIN.bottom + 15);
  }
  context.textAlign = "right";
  for (const tick of ticks(bottom, top, height / 50)) {
    rule(MARGIN.left, toY(tick), width - MARGIN.right, toY(tick), tick ? line : dim);
    context.fillText(number(tick), MARGIN.left - 6, toY(tick) + 4);
  }
  context.textAlign = "center";
  context.fillText("before the curve", (MARGIN.left + width - MARGIN.right) / 2, height - 6);
  context.textAlign = "left";
  context.fillText("after the curve", 4, 13);
  context.fillStyle = css(diverging(0.9));
  context.globalAlpha = 0.7;
  x.forEach((value, i) => {
    context.beginPath();
    context.arc(toX(value), toY(y[i]), RADIUS, 0, 2 * Math.PI);
    context.fill();
  });
  return canvas;
}
