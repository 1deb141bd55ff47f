// Attention patterns: thumbnails of all heads, and the selected head in full.

// A byte is 255 times the square root of a weight; a row ends at the diagonal.
const packedPatterns = Uint8Array.from(atob(data.attention), (c) => c.charCodeAt(0));
const triangleSize = (n * (n + 1)) / 2;
const patternOf = (layer, head) => {
  const start = (layer * data.heads + head) * triangleSize;
  return packedPatterns.subarray(start, start + triangleSize);
};

// The thumbnails of all heads.
{
  const saliency = (i) => percent(data.saliency[i]);
  const thumbs = headGrid($("thumbs"), {
    layers: data.layers,
    heads: data.heads,
    selected: data.layer * data.heads + data.head,
    describe: (i) => `saliency ${saliency(i)}`,
    select: selectHead,
  });
  // Drawn at the displayed size: scaling down in the browser drops whole columns.
  const draw = () => {
    const size = Math.max(8, Math.floor(thumbs[0].clientWidth * (devicePixelRatio || 1)));
    thumbs.forEach((thumb, i) =>
      thumb.replaceChildren(patternImage(patternOf(Math.floor(i / data.heads), i % data.heads), n, size)),
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

// The pattern of the selected head, and the text twice, colored by what the token attends to and by which
// tokens attend to it.
{
  const map = new AttentionMap($("map"), $("pair"), { hover: hoverToken, select: selectToken });
  const labels = data.tokens.map((_, t) => tokenLabel(t));
  const weightOf = (i, j) => map.weight(i, j);
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
      (j) => weightOf(t, j),
      (j) => j > t,
    );
    fill(
      "column",
      (i) => weightOf(i, t),
      (i) => i < t,
    );
  }
  on("head theme", () => {
    const { layer, head } = selection;
    $("selected").textContent = `Layer ${layer}, head ${head}`;
    map.show(layer, head, patternOf(layer, head), labels);
  });
  on("token", () => map.selectToken(currentToken()));
  on("token head theme", drawTexts);
  addEventListener("resize", () => map.draw());
}
