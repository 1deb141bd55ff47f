// Attention: every head as a small picture, one of them large.

// A byte is 255 times the root of a share; a row ends with its own token.
const packed = Uint8Array.from(atob(data.attention), (c) => c.charCodeAt(0));
const triangle = (n * (n + 1)) / 2;
const byteOf = (layer, head, i, j) =>
  j > i ? 0 : packed[(layer * data.heads + head) * triangle + (i * (i + 1)) / 2 + j];
const shareOf = (layer, head, i, j) => (byteOf(layer, head, i, j) / 255) ** 2;
const nameOf = (layer, head) => `L${layer}H${head}`;

// A pattern as a picture of at most `most` squared dots, each the largest share that falls on it.
function picture(layer, head, most) {
  const size = Math.min(n, most);
  const largest = new Uint8Array(size * size);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const at = Math.floor((i * size) / n) * size + Math.floor((j * size) / n);
      largest[at] = Math.max(largest[at], byteOf(layer, head, i, j));
    }
  }
  const image = new ImageData(size, size);
  largest.forEach((byte, at) => image.data.set([...ramp[byte], 255], 4 * at));
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The grid of all heads.
{
  const grid = $("thumbs");
  grid.style.gridTemplateColumns = `max-content repeat(${data.heads}, minmax(0, 132px))`;
  grid.append(make("span"), ...Array.from({ length: data.heads }, (_, head) => make("span", "", `H${head}`)));
  const thumbs = [];
  for (let layer = 0; layer < data.layers; layer++) {
    grid.append(make("span", "", `L${layer}`));
    for (let head = 0; head < data.heads; head++) {
      const score = percent(data.scores[layer * data.heads + head]);
      const thumb = make("button", "thumb", "", {
        "aria-label": `Layer ${layer}, head ${head}: ${score} on one other token`,
        title: `${nameOf(layer, head)}: ${score} on one other token`,
      });
      thumb.addEventListener("click", () => open(layer, head));
      thumbs.push(grid.appendChild(thumb));
    }
  }
  rove(thumbs, data.heads, data.layer * data.heads + data.head);
  // No larger than what is shown of it: where the browser makes a picture smaller, whole columns vanish.
  const draw = () => {
    const dots = Math.max(8, Math.floor(thumbs[0].clientWidth * (devicePixelRatio || 1)));
    thumbs.forEach((thumb, i) => thumb.replaceChildren(picture(Math.floor(i / data.heads), i % data.heads, dots)));
  };
  on("theme", draw);
  addEventListener("resize", draw);
  on("head theme", () => thumbs.forEach((thumb, i) => {
    thumb.setAttribute("aria-pressed", i === chosen.layer * data.heads + chosen.head);
  }));

  const order = data.scores.map((score, i) => [score, i]).sort((a, b) => b[0] - a[0]).slice(0, 6);
  $("telling").hidden = order[0][0] === 0; // too few tokens to tell
  $("telling").append("Most telling:");
  for (const [score, i] of order) {
    const [layer, head] = [Math.floor(i / data.heads), i % data.heads];
    const button = make("button", "", `${nameOf(layer, head)} ${percent(score)}`);
    button.addEventListener("click", () => open(layer, head));
    $("telling").append(button);
  }
  $("why").textContent =
    `Shown first is ${data.why}. Dark on light, or light on dark, is much attention; each head is a triangle, because no token sees what comes after it.`;
}

// The large map: tokens down the left attend to tokens along the top.
{
  const canvas = $("map");
  const context = canvas.getContext("2d");
  let pair = null; // the pair under the pointer or the keys
  let frame = {}; // where the map lies on the canvas

  function draw() {
    const { layer, head } = chosen;
    $("opened").textContent = `Layer ${layer}, head ${head}`;
    const width = canvas.clientWidth || 600;
    const scale = devicePixelRatio || 1;
    const font = (size, bold) => `${bold ? "700 " : ""}${size}px ${getComputedStyle(document.documentElement).getPropertyValue("--mono")}`;
    const guess = (width - 70) / n;
    const size = Math.max(8, Math.min(13, 0.9 * guess));
    context.font = font(size, true);
    const longest = Math.max(...data.tokens.map((_, t) => context.measureText(short(t)).width));
    const margin = Math.min(longest + 8, 0.3 * width);
    const cell = Math.min((width - margin) / n, 96);
    frame = { margin, cell };
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round((margin + n * cell + 2) * scale);
    canvas.style.height = `${margin + n * cell + 2}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture(layer, head, n), margin, margin, n * cell, n * cell);

    const at = pair?.[0] ?? here();
    const [line, accent, text] = ["line", "accent", "dim"].map((name) => css(rgb(name)));
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    context.strokeRect(margin, margin + at * cell, (at + 1) * cell, cell); // what it attends to
    const below = pair?.[1] ?? at;
    context.globalAlpha = 0.75;
    context.strokeRect(margin + below * cell, margin + below * cell, cell, (n - below) * cell); // who attends to it
    context.globalAlpha = 1;
    if (pair) {
      context.lineWidth = 2.5;
      context.strokeRect(margin + pair[1] * cell, margin + pair[0] * cell, cell, cell);
    }
    if (cell >= 30) { // room for numbers
      context.textAlign = "center";
      context.textBaseline = "middle";
      for (let i = 0; i < n; i++) {
        for (let j = 0; j <= i; j++) {
          const share = shareOf(layer, head, i, j);
          context.fillStyle = ink(heat(share));
          context.font = font(Math.min(13, cell / 3), false);
          if (share >= 0.005) context.fillText((100 * share).toFixed(0), margin + (j + 0.5) * cell, margin + (i + 0.5) * cell);
        }
      }
    }
    // Names, as many as there is room for, and always those that are spoken of.
    const every = Math.ceil(8 / cell);
    context.textBaseline = "middle";
    const named = (t, spoken) => t === spoken || (t % every === 0 && Math.abs(t - spoken) >= every);
    for (let t = 0; t < n; t++) {
      const [isRow, isColumn] = [t === at, t === below];
      if (named(t, at)) {
        context.font = font(size, isRow);
        context.fillStyle = isRow ? accent : text;
        context.textAlign = "right";
        context.fillText(short(t), margin - 5, margin + (t + 0.5) * cell, margin - 6);
      }
      if (named(t, below)) {
        context.save();
        context.translate(margin + (t + 0.5) * cell, margin - 5);
        context.rotate(-Math.PI / 2);
        context.font = font(size, isColumn);
        context.fillStyle = isColumn ? accent : text;
        context.textAlign = "left";
        context.fillText(short(t), 0, 0, margin - 6);
        context.restore();
      }
    }
    context.strokeStyle = line;
    canvas.setAttribute("aria-label",
      `Attention of layer ${layer}, head ${head}: ${n} by ${n} tokens. Arrow keys move from pair to pair.`);
    read();
  }
  const short = (t) => (word(t).length > 12 ? word(t).slice(0, 11) + "…" : word(t));

  // In words: the pair, or the strongest pairs of the token.
  function read() {
    const said = $("pair");
    const [i, j] = pair ?? [here(), null];
    said.replaceChildren();
    if (j !== null) {
      const share = j > i ? "nothing: it comes later" : percent(shareOf(chosen.layer, chosen.head, i, j));
      said.append(spell(make("b"), word(i)), " gives ", spell(make("b"), word(j)), ` ${share}`);
      return;
    }
    const most = Array.from({ length: i + 1 }, (_, j) => [shareOf(chosen.layer, chosen.head, i, j), j]);
    most.sort((a, b) => b[0] - a[0]);
    said.append(spell(make("b"), word(i)), " gives most to ");
    most.slice(0, 3).forEach(([share, j], at) => {
      said.append(at ? ", " : "", spell(make("b"), word(j)), ` ${percent(share)}`);
    });
  }
  const redraw = () => { pair = null; draw(); };

  canvas.addEventListener("pointermove", (event) => {
    const [i, j] = [event.offsetY, event.offsetX].map((x) => Math.floor((x - frame.margin) / frame.cell));
    const under = i >= 0 && i < n ? [i, Math.max(0, Math.min(i, j))] : null;
    peek(under?.[0] ?? null);
    pair = under;
    draw();
  });
  canvas.addEventListener("pointerleave", () => { pair = null; peek(null); });
  canvas.addEventListener("click", () => { if (pair) choose(pair[0]); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = pair ?? [chosen.token, chosen.token];
    const row = Math.max(0, Math.min(n - 1, i + step[0]));
    if (row !== chosen.token) choose(row);
    pair = [row, Math.max(0, Math.min(row, j + step[1]))];
    draw();
  });
  canvas.addEventListener("blur", redraw);

  // The text twice, shaded by what the token attends to and by who attends to it.
  function flows() {
    const t = here();
    const fill = (id, share, last) => $(id).replaceChildren(...data.tokens.map((_, other) => {
      const element = spell(make("span", "word"), word(other));
      const amount = share(other);
      element.title = percent(amount);
      if (last(other)) element.classList.add("later");
      else paint(element, heat(amount));
      if (other === t) element.classList.add("self");
      return element;
    }).flatMap((element) => [element, document.createElement("wbr")]));
    fill("row", (j) => shareOf(chosen.layer, chosen.head, t, j), (j) => j > t);
    fill("column", (i) => shareOf(chosen.layer, chosen.head, i, t), (i) => i < t);
  }
  on("token head theme", () => { flows(); redraw(); });
  addEventListener("resize", draw);
}
