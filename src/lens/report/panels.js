// The other views: interventions, next token, logit attribution, logit lens, residual norms, surprisal.

// The interventions and their effect on the prediction after the last token.
if (data.intervention) {
  const { edits, kl_divergence: kl, next_token: next } = data.intervention;
  $("intervention").hidden = false;
  $("intervention-note").textContent =
    `Interventions: ${edits.join(", ")}. The rest of this page shows the model with interventions; ` +
    "this section compares its prediction with that of the unmodified model. " +
    `KL divergence: ${kl === null ? "∞" : kl.toFixed(4)} nats.`;
  $("shifts").append(
    beforeAndAfter(next.map(([id, before, after]) => ({ name: label(id), before, after }))),
  );
}

// The most likely next tokens, and the actual next token.
on("token", () => {
  const t = currentToken();
  const [ids, probabilities, entropy, next] = data.logit_lens.at(-1)[t];
  const target = data.targets[t];
  const rows = ids.map((id, i) => ({
    name: label(id),
    fraction: probabilities[i] / probabilities[0],
    value: percent(probabilities[i]),
    actual: id === target && t < n - 1,
  }));
  const isLast = t === n - 1;
  if (next && !ids.includes(target)) {
    rows.push({
      name: label(target),
      fraction: next[0] / probabilities[0],
      value: percent(next[0]),
      actual: true,
    });
  }
  $("next").replaceChildren(bars(rows));
  const note = `Entropy ${entropyText(entropy)}.`;
  const actual =
    isLast || !next
      ? ""
      : ` Actual next token: ${label(target)}, rank ${(next[1] + 1).toLocaleString("en")}, ` +
        `surprisal ${data.surprisal_bits[t + 1].toFixed(1)} bits.`;
  $("next-note").textContent = note + actual;
});

// Direct logit attribution of the next token: a table by layer and head, and a bar chart.
{
  const indexOf = Object.fromEntries(data.components.map((name, i) => [name, i]));
  const table = createElement("table");
  const columns = [...Array.from({ length: data.heads }, (_, h) => `H${h}`), "bias", "MLP"];
  const head = table.createTHead().insertRow();
  head.append(
    createElement("th"),
    ...columns.map((name) => createElement("th", "", name, { scope: "col" })),
  );
  const cells = []; // [component, cell]
  const body = table.createTBody();
  for (let layer = 0; layer < data.layers; layer++) {
    const row = body.insertRow();
    row.append(createElement("th", "", `block ${layer}`, { scope: "row" }));
    const names = [
      ...Array.from({ length: data.heads }, (_, h) => headName(layer, h)),
      `bias${layer}`,
      `mlp${layer}`,
    ];
    names.forEach((name, head) => {
      const cell = createElement("button", "cell");
      if (head < data.heads) cell.addEventListener("click", () => selectHead(layer, head));
      row.insertCell().append(cell);
      cells.push([name, cell]);
    });
  }
  const lastRow = body.insertRow();
  lastRow.append(createElement("th", "", "other", { scope: "row" }));
  for (const name of ["embed", "position", "ln_f"]) {
    const cell = createElement("button", "cell");
    const container = lastRow.insertCell();
    container.colSpan = Math.max(1, Math.floor(columns.length / 3));
    container.append(cell);
    cells.push([name, cell]);
  }
  $("attribution").append(table);
  enableRovingFocus(
    cells.map(([, cell]) => cell),
    columns.length,
  );

  const draw = () => {
    const t = currentToken();
    const kind = $("contribution").value;
    const contributions = data[kind][t];
    const largest = Math.max(...contributions.map(Math.abs), 1e-9);
    const digits = data.heads > 16 ? 0 : 1;
    for (const [name, cell] of cells) {
      const contribution = contributions[indexOf[name]];
      const prefix = ["embed", "position", "ln_f"].includes(name) ? `${name} ` : "";
      cell.textContent = prefix + signed(contribution, digits);
      cell.setAttribute("aria-label", `${name}: ${signed(contribution)}`);
      cell.title = `${name}: ${signed(contribution, 3)}`;
      paint(cell, diverging(contribution / largest));
    }
    const order = contributions
      .map((contribution, i) => [contribution, data.components[i]])
      .sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
    $("largest").replaceChildren(
      bars(
        order.slice(0, 14).map(([contribution, name]) => ({
          name,
          fraction: Math.abs(contribution) / largest,
          value: signed(contribution),
          kind: contribution < 0 ? "negative" : "positive",
        })),
      ),
    );
    setLabel($("target"), label(data.targets[t]));
    const [logit, mean] = [data.logits[t], data.mean_logits[t]];
    const which = t === n - 1 ? "the target token" : "the actual next token";
    $("attribution-note").textContent =
      `For ${which} after ${tokenLabel(t)}. ` +
      (kind === "contributions"
        ? `The contributions sum to its logit, ${unsigned(logit)}.`
        : `The contributions sum to ${signed(logit - mean)}: ` +
          `its logit, ${unsigned(logit)}, minus the mean logit, ${unsigned(mean)}.`) +
      " Effects through later components are not included. Select a head to show its attention pattern.";
  };
  on("token theme", draw);
  $("contribution").addEventListener("change", draw);
}

// The logit lens.
{
  const table = createElement("table");
  const header = table.createTHead().insertRow();
  header.append(createElement("th"));
  const names = data.tokens.map((_, t) =>
    header.appendChild(setLabel(createElement("th", "", "", { scope: "col" }), tokenLabel(t))),
  );
  const cells = [];
  const body = table.createTBody();
  data.logit_lens.forEach((predictions, depth) => {
    const row = body.insertRow();
    const name = depth ? `block ${depth - 1}` : "embed";
    row.append(createElement("th", "", name, { scope: "row" }));
    predictions.forEach((prediction, t) => {
      const cell = setLabel(createElement("button", "cell"), label(prediction[0][0]));
      const [[id], [probability]] = prediction;
      cell.setAttribute(
        "aria-label",
        `${name}, after ${tokenLabel(t)}: ${label(id)} ${percent(probability)}`,
      );
      const describe = () => {
        const [ids, probabilities, , next] = prediction;
        const output = $("lens-readout");
        const place = depth ? `After block ${depth - 1}` : "Before the first block";
        output.replaceChildren(`${place}, after `, setLabel(createElement("b"), tokenLabel(t)), ": ");
        ids.slice(0, 5).forEach((id, i) => {
          output.append(
            i ? ", " : "",
            setLabel(createElement("b"), label(id)),
            ` ${percent(probabilities[i])}`,
          );
        });
        if (next) {
          const rank = (next[1] + 1).toLocaleString("en");
          output.append(
            "; ",
            setLabel(createElement("b"), label(data.targets[t])),
            ` has rank ${rank}, ${percent(next[0])}`,
          );
        }
      };
      cell.addEventListener("pointerenter", describe);
      cell.addEventListener("focus", () => {
        describe();
        selectToken(t);
      });
      cell.addEventListener("click", () => selectToken(t));
      row.insertCell().append(cell);
      cells.push(cell);
    });
  });
  $("lens").append(table);
  enableRovingFocus(cells, n, data.logit_lens.length * n - 1);
  const paintCells = () =>
    cells.forEach((cell, i) => {
      const [, probabilities, , next] = data.logit_lens[Math.floor(i / n)][i % n];
      paint(cell, heat($("color").value === "top" ? probabilities[0] : (next?.[0] ?? 0)));
    });
  on("theme", paintCells);
  $("color").addEventListener("change", paintCells);
  on("token", () => {
    names.forEach((name, t) => name.classList.toggle("current-column", t === currentToken()));
    cells.forEach((cell, i) =>
      cell.parentElement.classList.toggle("current-column", i % n === currentToken()),
    );
    if (selection.hovered === null) scrollIntoContainer($("lens"), names[selection.token]);
  });
}

// Residual stream norms, one line per token.
{
  const [width, height, left, bottom] = [Math.max(300, $("norms").clientWidth), 250, 42, 24];
  const chart = $("norms").firstElementChild;
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const draw = (name, attributes, text = "") => {
    const element = document.createElementNS(chart.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  const all = data.residual_norms.flat().filter((x) => x > 0);
  const [low, high] = [Math.log10(Math.min(...all, 1e9)) - 0.05, Math.log10(Math.max(...all, 1e-9)) + 0.05];
  const x = (depth) => left + (depth / Math.max(1, data.layers)) * (width - left - 10);
  const y = (norm) =>
    height -
    bottom -
    ((Math.log10(Math.max(norm, 1e-9)) - low) / (high - low || 1)) * (height - bottom - 8);
  for (let power = Math.floor(low); power <= high; power++) {
    for (const step of high - low > 2 ? [1] : [1, 2, 5]) {
      const norm = step * 10 ** power;
      if (Math.log10(norm) < low || Math.log10(norm) > high) continue;
      chart.append(draw("line", { class: "grid", x1: left, x2: width - 10, y1: y(norm), y2: y(norm) }));
      chart.append(
        draw("text", { x: left - 6, y: y(norm) + 4, "text-anchor": "end" }, norm.toLocaleString("en")),
      );
    }
  }
  const labelInterval = Math.ceil((56 * (data.layers + 1)) / width);
  for (let depth = 0; depth <= data.layers; depth += labelInterval) {
    chart.append(
      draw(
        "text",
        { x: x(depth), y: height - 6, "text-anchor": "middle" },
        depth ? `block ${depth - 1}` : "embed",
      ),
    );
  }
  const lines = data.tokens.map((_, t) =>
    chart.appendChild(
      draw("polyline", {
        class: "norm-line",
        points: data.residual_norms.map((row, depth) => `${x(depth)},${y(row[t])}`).join(" "),
      }),
    ),
  );
  on("token", () => {
    lines.forEach((line, t) => line.classList.toggle("on", t === currentToken()));
    chart.append(lines[currentToken()]); // on top of the others
    const norms = data.residual_norms.map((row) => row[currentToken()].toFixed(1));
    chart.setAttribute(
      "aria-label",
      `Residual stream norms of ${tokenLabel(currentToken())}, embedding to last block: ${norms.join(", ")}`,
    );
  });
}

// Surprisal: a column per token, with the entropy as the expected surprisal.
{
  const known = data.surprisal_bits.filter((bits) => bits !== null);
  const highest = Math.max(...known, ...data.logit_lens.at(-1).map((prediction) => prediction[2]), 1);
  const columns = data.tokens.map((_, t) => {
    const bits = data.surprisal_bits[t];
    const expected = t ? data.logit_lens.at(-1)[t - 1][2] : null;
    const column = createElement("button", "column", "", { tabindex: -1 });
    column.title =
      bits === null
        ? `${tokenLabel(t)}: first token`
        : `${tokenLabel(t)}: ${bits.toFixed(1)} bits, ${expected.toFixed(1)} expected`;
    column.setAttribute("aria-label", column.title);
    const bar = column.appendChild(createElement("span", "bar"));
    if (bits !== null) {
      bar.appendChild(createElement("i")).style.height = `${(100 * bits) / highest}%`;
      bar.appendChild(createElement("u")).style.bottom = `${(100 * expected) / highest}%`;
    }
    column.append(setLabel(createElement("span", "name"), tokenLabel(t)));
    column.addEventListener("click", () => selectToken(t));
    return $("surprisal").appendChild(column);
  });
  on("token", () => {
    columns.forEach((column, t) => column.classList.toggle("on", t === currentToken()));
    if (selection.hovered === null) scrollIntoContainer($("surprisal"), columns[selection.token]);
  });
  const mean = known.reduce((sum, bits) => sum + bits, 0) / known.length;
  $("surprisal-note").textContent = known.length
    ? "The surprisal of each token in bits. The line across a column is the entropy of the prediction " +
      "(the expected surprisal). " +
      `Mean surprisal ${mean.toFixed(2)} bits, perplexity ${(2 ** mean).toFixed(1)}.`
    : "The first token has no surprisal.";
}

emit("theme");
emit("head");
emit("token");
