// Attention patterns: thumbnails of all heads, and the selected head in full.

// A byte is 255 times the square root of a weight; a row ends at the diagonal.
const packedPatterns = Uint8Array.from(atob(data.attention), (c) => c.charCodeAt(0));
const triangleSize = (n * (n + 1)) / 2;
const byteOf = (layer, head, i, j) =>
  j > i ? 0 : packedPatterns[(layer * data.heads + head) * triangleSize + (i * (i + 1)) / 2 + j];
const weightOf = (layer, head, i, j) => (byteOf(layer, head, i, j) / 255) ** 2;
const headName = (layer, head) => `L${layer}H${head}`;

// Draws a pattern with at most `maxSize` × `maxSize` pixels, each the largest weight in its area.
function drawPattern(layer, head, maxSize) {
  const size = Math.min(n, maxSize);
  const largest = new Uint8Array(size * size);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const pixel = Math.floor((i * size) / n) * size + Math.floor((j * size) / n);
      largest[pixel] = Math.max(largest[pixel], byteOf(layer, head, i, j));
    }
  }
  const image = new ImageData(size, size);
  largest.forEach((byte, pixel) => image.data.set([...ramp[byte], 255], 4 * pixel));
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The thumbnails of all heads.
{
  const grid = $("thumbs");
  grid.style.gridTemplateColumns = `max-content repeat(${data.heads}, minmax(0, 132px))`;
  grid.append(
    createElement("span"),
    ...Array.from({ length: data.heads }, (_, head) => createElement("span", "", `H${head}`)),
  );
  const thumbs = [];
  for (let layer = 0; layer < data.layers; layer++) {
    grid.append(createElement("span", "", `L${layer}`));
    for (let head = 0; head < data.heads; head++) {
      const saliency = percent(data.saliency[layer * data.heads + head]);
      const thumb = createElement("button", "thumb", "", {
        "aria-label": `Layer ${layer}, head ${head}: saliency ${saliency}`,
        title: `${headName(layer, head)}: saliency ${saliency}`,
      });
      thumb.addEventListener("click", () => selectHead(layer, head));
      thumbs.push(grid.appendChild(thumb));
    }
  }
  enableRovingFocus(thumbs, data.heads, data.layer * data.heads + data.head);
  // Drawn at the displayed size: scaling down in the browser drops whole columns.
  const draw = () => {
    const size = Math.max(8, Math.floor(thumbs[0].clientWidth * (devicePixelRatio || 1)));
    thumbs.forEach((thumb, i) =>
      thumb.replaceChildren(drawPattern(Math.floor(i / data.heads), i % data.heads, size)),
    );
  };
  on("theme", draw);
  addEventListener("resize", draw);
  on("head theme", () =>
    thumbs.forEach((thumb, i) => {
      thumb.setAttribute("aria-pressed", i === selection.layer * data.heads + selection.head);
    }),
  );

  const order = data.saliency
    .map((saliency, i) => [saliency, i])
    .sort((a, b) => b[0] - a[0])
    .slice(0, 6);
  $("salient").hidden = order[0][0] === 0; // too few tokens
  $("salient").append("Most salient:");
  for (const [saliency, i] of order) {
    const [layer, head] = [Math.floor(i / data.heads), i % data.heads];
    const button = createElement("button", "", `${headName(layer, head)} ${percent(saliency)}`);
    button.addEventListener("click", () => selectHead(layer, head));
    $("salient").append(button);
  }
  $("head-note").textContent =
    `Initially selected: ${data.head_description}. Stronger colors are larger attention weights. ` +
    "Each pattern is a triangle because of the causal mask.";
}

// The pattern of the selected head: the tokens at the left attend to the tokens at the top.
{
  const canvas = $("map");
  const context = canvas.getContext("2d");
  let pair = null; // the selected pair of tokens
  let frame = {}; // the position of the pattern on the canvas

  function draw() {
    const { layer, head } = selection;
    $("selected").textContent = `Layer ${layer}, head ${head}`;
    const width = canvas.clientWidth || 600;
    const scale = devicePixelRatio || 1;
    const mono = getComputedStyle(document.documentElement).getPropertyValue("--mono");
    const font = (size, bold) => `${bold ? "700 " : ""}${size}px ${mono}`;
    const cellEstimate = (width - 70) / n;
    const size = Math.max(8, Math.min(13, 0.9 * cellEstimate));
    context.font = font(size, true);
    const longest = Math.max(...data.tokens.map((_, t) => context.measureText(shortLabel(t)).width));
    const margin = Math.min(longest + 8, 0.3 * width);
    const cell = Math.min((width - margin) / n, 96);
    frame = { margin, cell };
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round((margin + n * cell + 2) * scale);
    canvas.style.height = `${margin + n * cell + 2}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(drawPattern(layer, head, n), margin, margin, n * cell, n * cell);

    const row = pair?.[0] ?? currentToken();
    const [line, accent, text] = ["line", "accent", "dim"].map((name) => css(rgb(name)));
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    // What the token attends to.
    context.strokeRect(margin, margin + row * cell, (row + 1) * cell, cell);
    const column = pair?.[1] ?? row;
    context.globalAlpha = 0.75;
    // Tokens that attend to it.
    context.strokeRect(margin + column * cell, margin + column * cell, cell, (n - column) * cell);
    context.globalAlpha = 1;
    if (pair) {
      context.lineWidth = 2.5;
      context.strokeRect(margin + pair[1] * cell, margin + pair[0] * cell, cell, cell);
    }
    if (cell >= 30) {
      // large enough for numbers
      context.textAlign = "center";
      context.textBaseline = "middle";
      for (let i = 0; i < n; i++) {
        for (let j = 0; j <= i; j++) {
          const weight = weightOf(layer, head, i, j);
          context.fillStyle = textOn(heat(weight));
          context.font = font(Math.min(13, cell / 3), false);
          if (weight >= 0.005)
            context.fillText(
              (100 * weight).toFixed(0),
              margin + (j + 0.5) * cell,
              margin + (i + 0.5) * cell,
            );
        }
      }
    }
    // As many labels as fit, and always those of the selected row and column.
    const labelInterval = Math.ceil(8 / cell);
    context.textBaseline = "middle";
    const hasLabel = (t, selected) =>
      t === selected || (t % labelInterval === 0 && Math.abs(t - selected) >= labelInterval);
    for (let t = 0; t < n; t++) {
      const [isRow, isColumn] = [t === row, t === column];
      if (hasLabel(t, row)) {
        context.font = font(size, isRow);
        context.fillStyle = isRow ? accent : text;
        context.textAlign = "right";
        context.fillText(shortLabel(t), margin - 5, margin + (t + 0.5) * cell, margin - 6);
      }
      if (hasLabel(t, column)) {
        context.save();
        context.translate(margin + (t + 0.5) * cell, margin - 5);
        context.rotate(-Math.PI / 2);
        context.font = font(size, isColumn);
        context.fillStyle = isColumn ? accent : text;
        context.textAlign = "left";
        context.fillText(shortLabel(t), 0, 0, margin - 6);
        context.restore();
      }
    }
    context.strokeStyle = line;
    canvas.setAttribute(
      "aria-label",
      `Attention pattern of layer ${layer}, head ${head}: ${n} by ${n} tokens. Arrow keys select a pair.`,
    );
    describe();
  }
  const shortLabel = (t) => (tokenLabel(t).length > 12 ? tokenLabel(t).slice(0, 11) + "…" : tokenLabel(t));

  // Describes the selected pair, or the largest weights of the selected token.
  function describe() {
    const output = $("pair");
    const [i, j] = pair ?? [currentToken(), null];
    output.replaceChildren();
    if (j !== null) {
      const weight = j > i ? "0 % (masked)" : percent(weightOf(selection.layer, selection.head, i, j));
      output.append(
        setLabel(createElement("b"), tokenLabel(i)),
        " attends to ",
        setLabel(createElement("b"), tokenLabel(j)),
        ` with ${weight}`,
      );
      return;
    }
    const weights = Array.from({ length: i + 1 }, (_, j) => [
      weightOf(selection.layer, selection.head, i, j),
      j,
    ]);
    weights.sort((a, b) => b[0] - a[0]);
    output.append(setLabel(createElement("b"), tokenLabel(i)), " attends most to ");
    weights.slice(0, 3).forEach(([weight, j], rank) => {
      output.append(rank ? ", " : "", setLabel(createElement("b"), tokenLabel(j)), ` ${percent(weight)}`);
    });
  }
  const redraw = () => {
    pair = null;
    draw();
  };

  canvas.addEventListener("pointermove", (event) => {
    const [i, j] = [event.offsetY, event.offsetX].map((x) => Math.floor((x - frame.margin) / frame.cell));
    const hovered = i >= 0 && i < n ? [i, Math.max(0, Math.min(i, j))] : null;
    hoverToken(hovered?.[0] ?? null);
    pair = hovered;
    draw();
  });
  canvas.addEventListener("pointerleave", () => {
    pair = null;
    hoverToken(null);
  });
  canvas.addEventListener("click", () => {
    if (pair) selectToken(pair[0]);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = pair ?? [selection.token, selection.token];
    const row = Math.max(0, Math.min(n - 1, i + step[0]));
    if (row !== selection.token) selectToken(row);
    pair = [row, Math.max(0, Math.min(row, j + step[1]))];
    draw();
  });
  canvas.addEventListener("blur", redraw);

  // The text twice, colored by what the token attends to and by which tokens attend to it.
  function drawTexts() {
    const t = currentToken();
    const fill = (id, weightFor, isMasked) =>
      $(id).replaceChildren(
        ...data.tokens
          .map((_, other) => {
            const element = setLabel(createElement("span", "word"), tokenLabel(other));
            const weight = weightFor(other);
            element.title = percent(weight);
            if (isMasked(other)) element.classList.add("masked");
            else paint(element, heat(weight));
            if (other === t) element.classList.add("self");
            return element;
          })
          .flatMap((element) => [element, document.createElement("wbr")]),
      );
    fill(
      "row",
      (j) => weightOf(selection.layer, selection.head, t, j),
      (j) => j > t,
    );
    fill(
      "column",
      (i) => weightOf(selection.layer, selection.head, i, t),
      (i) => i < t,
    );
  }
  on("token head theme", () => {
    drawTexts();
    redraw();
  });
  addEventListener("resize", draw);
}
