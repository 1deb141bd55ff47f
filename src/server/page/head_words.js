// What a head does in a text, in words: the kinds of heads are those of `hornbook heads`, whose scores come
// from random tokens; here they are measured on the reader's own text.
import { percent, weightAt } from "./drawing.js";

const MOSTLY = 0.5; // of the attention
const MIN_SCORE = 0.2; // below which a kind is not named, as in `hornbook heads`
const EVEN = 0.85; // of the largest entropy that there could be
const MIN_TOKENS = 4; // before that, the token before is often the first one

// The places that a token may look at, by name. `seen` are the places where the same token stood before.
const KINDS = [
  ["the token before", (i) => [i - 1]],
  ["the first token", () => [0]],
  ["the token itself", (i) => [i]],
  ["earlier copies of the same token", (i, seen) => seen],
  [
    "what followed earlier copies of the same token",
    (i, seen) => seen.map((j) => j + 1).filter((j) => j < i),
  ],
];

// The scores of all kinds: the mean attention on their places, over the tokens that have any. How even the
// attention is, from 0 to 1. And how much is on one other token, with the token that is it most often.
export function headScores(pattern, ids) {
  const n = ids.length;
  const scores = KINDS.map(() => ({ sum: 0, tokens: 0 }));
  const last = new Map(); // of every id, the places so far
  const favorites = new Map();
  let [even, other] = [0, 0];
  for (let i = 0; i < n; i++) {
    const seen = last.get(ids[i]) ?? [];
    last.set(ids[i], [...seen, i]);
    if (i < 2) continue; // these see too little to choose from
    const row = Array.from({ length: i + 1 }, (_, j) => weightAt(pattern, i, j));
    const total = row.reduce((a, b) => a + b, 0) || 1; // a byte per weight is rounded
    KINDS.forEach(([, places], kind) => {
      const targets = places(i, seen);
      if (!targets.length) return;
      scores[kind].sum += targets.reduce((sum, j) => sum + row[j], 0) / total;
      scores[kind].tokens++;
    });
    const shares = row.map((weight) => weight / total);
    const entropy = shares.reduce((sum, share) => sum - (share ? share * Math.log(share) : 0), 0);
    even += entropy / Math.log(i + 1) / (n - 2);
    if (i < 3) continue;
    const [weight, j] = row.slice(1, i - 1).reduce((best, w, k) => (w > best[0] ? [w, k + 1] : best), [0, 1]);
    other += weight / total / (n - 3);
    if (weight / total >= MIN_SCORE) favorites.set(ids[j], [...(favorites.get(ids[j]) ?? []), j]);
  }
  const kinds = scores.map(({ sum, tokens }, kind) => ({
    name: KINDS[kind][0],
    score: tokens ? sum / tokens : 0,
    tokens,
  }));
  const [favorite] = [...favorites.values()].sort((a, b) => b.length - a.length);
  return { kinds, even, other, favorite: favorite && { token: favorite[0], count: favorite.length } };
}

export function headWords(name, pattern, ids, labels) {
  if (ids.length < MIN_TOKENS) return `The text is too short to say what ${name} does.`;
  const { kinds, even, other, favorite } = headScores(pattern, ids);
  const isFound = ({ score, tokens }) => score >= MIN_SCORE && tokens > 1;
  const found = kinds.filter(isFound).sort((a, b) => b.score - a.score);
  const over = ({ tokens }) => (tokens < ids.length - 2 ? `, over the ${tokens} tokens that have any` : "");
  const amount = (kind) => `with ${percent(kind.score)} of its attention on average${over(kind)}`;
  const [best, second] = found;
  const head = `In this text, ${name}`;
  if (best && best.score >= MOSTLY) {
    const also = second ? ` Next comes ${second.name}, ${amount(second)}.` : "";
    return `${head} looks mostly at ${best.name}, ${amount(best)}.${also}`;
  }
  if (other >= 0.3 || (other >= MIN_SCORE && other >= (best?.score ?? 0))) {
    const often = favorite && favorite.count > 1;
    const { token, count } = favorite ?? {};
    const which = often ? ` Most often that is “${labels[token]}”, for ${count} tokens.` : "";
    return (
      `${head} looks at single tokens farther back: ${percent(other)} of a token’s attention, on average, ` +
      `is on one that is not the first, the one before or itself.${which}`
    );
  }
  if (even >= EVEN) return `${head} spreads its attention almost evenly over the tokens so far.`;
  if (!best) return `${head} has no one place that it looks at.`;
  if (!second) return `${head} looks at ${best.name}, ${amount(best)}; the rest is spread.`;
  const parts = found.slice(0, 3).map((kind) => `${percent(kind.score)} are on ${kind.name}${over(kind)}`);
  return `${head} divides its attention. On average ${parts.join("; ")}; the rest is spread.`;
}
