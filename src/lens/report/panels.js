// The other views: next token, contributions, logit lens, residual norms, surprise.

// What was changed in the model, and what that did to its answer at the text's end.
if (data.changed) {
  const { changes, kl, next } = data.changed;
  $("changed").hidden = false;
  $("changed-note").textContent =
    `Changed: ${changes.join(", ")}. All else on this page is the changed model; here its next token stands beside that of ` +
    `the model as it is. The answers are a Kullback-Leibler divergence of ${kl === null ? "∞" : kl.toFixed(4)} nats apart.`;
  const largest = Math.max(...next.flatMap(([, before, after]) => [before, after]), 1e-9);
  $("shifts").append(bars(next.flatMap(([id, before, after]) => [
    { name: label(id), share: before / largest, value: `before ${percent(before)}`, kind: "before" },
    { name: "", share: after / largest, value: `after ${percent(after)}`, kind: "after" },
  ])));
}

// The likeliest next tokens, and what came.
on("token", () => {
  const t = here();
  const [ids, shares, entropy, next] = data.lens.at(-1)[t];
  const target = data.targets[t];
  const rows = ids.map((id, i) => ({ name: label(id), share: shares[i] / shares[0], value: percent(shares[i]), came: id === target && t < n - 1 }));
  const isLast = t === n - 1;
  if (next && !ids.includes(target)) {
    rows.push({ name: label(target), share: next[0] / shares[0], value: percent(next[0]), came: true });
  }
  $("next").replaceChildren(bars(rows));
  const unsure = `Entropy ${entropy.toFixed(2)} bits: as unsure as among ${Math.max(1, Math.round(2 ** entropy)).toLocaleString("en")} equally likely tokens.`;
  const came = isLast || !next ? "" : ` What came was ${label(target)}: number ${(next[1] + 1).toLocaleString("en")} in its order, a surprise of ${data.bits[t + 1].toFixed(1)} bits.`;
  $("next-note").textContent = unsure + came;
});

// What each part gives the logit of what came next: a table by layer and head, and the loudest as bars.
{
  const at = Object.fromEntries(data.parts.map((name, i) => [name, i]));
  const table = make("table");
  const columns = [...Array.from({ length: data.heads }, (_, h) => `H${h}`), "bias", "MLP"];
  const head = table.createTHead().insertRow();
  head.append(make("th"), ...columns.map((name) => make("th", "", name, { scope: "col" })));
  const cells = []; // [part, cell]
  const body = table.createTBody();
  for (let layer = 0; layer < data.layers; layer++) {
    const row = body.insertRow();
    row.append(make("th", "", `block ${layer}`, { scope: "row" }));
    const names = [...Array.from({ length: data.heads }, (_, h) => nameOf(layer, h)), `bias${layer}`, `mlp${layer}`];
    names.forEach((name, head) => {
      const cell = make("button", "cell");
      if (head < data.heads) cell.addEventListener("click", () => open(layer, head));
      row.insertCell().append(cell);
      cells.push([name, cell]);
    });
  }
  const rest = body.insertRow();
  rest.append(make("th", "", "outside", { scope: "row" }));
  for (const name of ["embed", "position", "ln_f"]) {
    const cell = make("button", "cell");
    const box = rest.insertCell();
    box.colSpan = Math.max(1, Math.floor(columns.length / 3));
    box.append(cell);
    cells.push([name, cell]);
  }
  $("parts").append(table);
  rove(cells.map(([, cell]) => cell), columns.length);

  const draw = () => {
    const t = here();
    const kind = $("amount").value;
    const amounts = data[kind][t];
    const largest = Math.max(...amounts.map(Math.abs), 1e-9);
    const digits = data.heads > 16 ? 0 : 1;
    for (const [name, cell] of cells) {
      const amount = amounts[at[name]];
      const shown = ["embed", "position", "ln_f"].includes(name) ? `${name} ` : "";
      cell.textContent = shown + signed(amount, digits);
      cell.setAttribute("aria-label", `${name}: ${signed(amount)}`);
      cell.title = `${name}: ${signed(amount, 3)}`;
      paint(cell, diverging(amount / largest));
    }
    const order = amounts.map((amount, i) => [amount, data.parts[i]]).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
    $("loudest").replaceChildren(bars(order.slice(0, 14).map(([amount, name]) => ({
      name, share: Math.abs(amount) / largest, value: signed(amount), kind: amount < 0 ? "against" : "for",
    }))));
    spell($("target"), label(data.targets[t]));
    const [logit, mean] = [data.logits[t], data.means[t]];
    const asked = t === n - 1 ? "the token asked about" : "the token that came next";
    $("parts-note").textContent =
      `After ${word(t)}, for ${asked}. ` +
      (kind === "direct"
        ? `All parts add up to its logit, ${plain(logit)}.`
        : `All parts add up to ${signed(logit - mean)}: its logit, ${plain(logit)}, less the average token’s, ${plain(mean)}.`) +
      " What a part does through later parts is not counted. A head opens above.";
  };
  on("token theme", draw);
  $("amount").addEventListener("change", draw);
}

// The logit lens.
{
  const table = make("table");
  const header = table.createTHead().insertRow();
  header.append(make("th"));
  const names = data.tokens.map((_, t) => header.appendChild(spell(make("th", "", "", { scope: "col" }), word(t))));
  const cells = [];
  const body = table.createTBody();
  data.lens.forEach((readings, depth) => {
    const row = body.insertRow();
    const name = depth ? `block ${depth - 1}` : "embed";
    row.append(make("th", "", name, { scope: "row" }));
    readings.forEach((reading, t) => {
      const cell = spell(make("button", "cell"), label(reading[0][0]));
      cell.setAttribute("aria-label", `${name}, after ${word(t)}: ${label(reading[0][0])} ${percent(reading[1][0])}`);
      const say = () => {
        const [ids, shares, , next] = reading;
        const said = $("lens-reading");
        said.replaceChildren(`${depth ? `After block ${depth - 1}` : "Before the first block"}, at `, spell(make("b"), word(t)), ": ");
        ids.slice(0, 5).forEach((id, i) => said.append(i ? ", " : "", spell(make("b"), label(id)), ` ${percent(shares[i])}`));
        if (next) said.append("; ", spell(make("b"), label(data.targets[t])), ` is number ${(next[1] + 1).toLocaleString("en")}, ${percent(next[0])}`);
      };
      cell.addEventListener("pointerenter", say);
      cell.addEventListener("focus", () => { say(); choose(t); });
      cell.addEventListener("click", () => choose(t));
      row.insertCell().append(cell);
      cells.push(cell);
    });
  });
  $("lens").append(table);
  rove(cells, n, data.lens.length * n - 1);
  const colour = () => cells.forEach((cell, i) => {
    const [, shares, , next] = data.lens[Math.floor(i / n)][i % n];
    paint(cell, heat($("colour").value === "best" ? shares[0] : next?.[0] ?? 0));
  });
  on("theme", colour);
  $("colour").addEventListener("change", colour);
  on("token", () => {
    names.forEach((name, t) => name.classList.toggle("here-column", t === here()));
    cells.forEach((cell, i) => cell.parentElement.classList.toggle("here-column", i % n === here()));
    if (chosen.peek === null) reveal($("lens"), names[chosen.token]);
  });
}

// Residual norms, a thread for each token.
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
  const all = data.norms.flat().filter((x) => x > 0);
  const [low, high] = [Math.log10(Math.min(...all, 1e9)) - 0.05, Math.log10(Math.max(...all, 1e-9)) + 0.05];
  const x = (depth) => left + (depth / Math.max(1, data.layers)) * (width - left - 10);
  const y = (norm) => (height - bottom) - ((Math.log10(Math.max(norm, 1e-9)) - low) / (high - low || 1)) * (height - bottom - 8);
  for (let power = Math.floor(low); power <= high; power++) {
    for (const step of high - low > 2 ? [1] : [1, 2, 5]) {
      const norm = step * 10 ** power;
      if (Math.log10(norm) < low || Math.log10(norm) > high) continue;
      chart.append(draw("line", { class: "grid", x1: left, x2: width - 10, y1: y(norm), y2: y(norm) }));
      chart.append(draw("text", { x: left - 6, y: y(norm) + 4, "text-anchor": "end" }, norm.toLocaleString("en")));
    }
  }
  const every = Math.ceil((56 * (data.layers + 1)) / width);
  for (let depth = 0; depth <= data.layers; depth += every) {
    chart.append(draw("text", { x: x(depth), y: height - 6, "text-anchor": "middle" }, depth ? `block ${depth - 1}` : "embed"));
  }
  const threads = data.tokens.map((_, t) => chart.appendChild(draw("polyline", {
    class: "thread", points: data.norms.map((row, depth) => `${x(depth)},${y(row[t])}`).join(" "),
  })));
  on("token", () => {
    threads.forEach((thread, t) => thread.classList.toggle("on", t === here()));
    chart.append(threads[here()]); // on top of the others
    const norms = data.norms.map((row) => row[here()].toFixed(1));
    chart.setAttribute("aria-label", `Norms of ${word(here())}, from the embedding to the last block: ${norms.join(", ")}`);
  });
}

// Surprise, a column for each token, and the surprise that was expected.
{
  const known = data.bits.filter((bits) => bits !== null);
  const highest = Math.max(...known, ...data.lens.at(-1).map((reading) => reading[2]), 1);
  const columns = data.tokens.map((_, t) => {
    const bits = data.bits[t];
    const expected = t ? data.lens.at(-1)[t - 1][2] : null;
    const column = make("button", "column", "", { tabindex: -1 });
    column.title = bits === null ? `${word(t)}: nothing came before it` : `${word(t)}: ${bits.toFixed(1)} bits, ${expected.toFixed(1)} expected`;
    column.setAttribute("aria-label", column.title);
    const well = column.appendChild(make("span", "well"));
    if (bits !== null) {
      well.appendChild(make("i")).style.height = `${(100 * bits) / highest}%`;
      well.appendChild(make("u")).style.bottom = `${(100 * expected) / highest}%`;
    }
    column.append(spell(make("span", "name"), word(t)));
    column.addEventListener("click", () => choose(t));
    return $("surprise").appendChild(column);
  });
  on("token", () => {
    columns.forEach((column, t) => column.classList.toggle("on", t === here()));
    if (chosen.peek === null) reveal($("surprise"), columns[chosen.token]);
  });
  const mean = known.reduce((sum, bits) => sum + bits, 0) / known.length;
  $("surprise-note").textContent = known.length
    ? `How many bits of surprise each token was; the line across a column is how many the model expected (its entropy). ${mean.toFixed(2)} bits in the mean, a perplexity of ${(2 ** mean).toFixed(1)}.`
    : "Nothing came before the only token, so there is no surprise.";
}

tell("theme");
tell("head");
tell("token");
