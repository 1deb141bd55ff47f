// Labels of tokens, in which everything can be seen: the command line writes them the same way.

export const visible = (text) => text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "→");

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
// The bytes of the character that begins with one.
const lengthOf = (first) => (first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);

// A token's text, or its id. Bytes that are no characters without other tokens are written as \xE2.
export function labelOf({ id, text, bytes }) {
  if (!text) return `#${id}`;
  if (!bytes || !text.includes("\ufffd")) return visible(text);
  let label = "";
  for (let i = 0; i < bytes.length; ) {
    const piece = bytes.slice(i, i + lengthOf(bytes[i]));
    try {
      label += visible(decoder.decode(Uint8Array.from(piece)));
      i += piece.length;
    } catch {
      label += `\\x${bytes[i++].toString(16).toUpperCase()}`;
    }
  }
  return label;
}

// Of every token, which bytes of which character it is, as “byte 1 of 2 of “é””; null for whole characters.
export function partsOfCharacters(tokens) {
  const decoder = new TextDecoder();
  const parts = tokens.map(() => null);
  let group = [];
  tokens.forEach((token, i) => {
    group.push(i);
    const text = decoder.decode(Uint8Array.from(token.bytes ?? []), { stream: i + 1 < tokens.length });
    if (!text) return;
    if (group.length > 1 && !text.includes("\ufffd")) {
      const total = group.reduce((sum, at) => sum + tokens[at].bytes.length, 0);
      let from = 1;
      for (const at of group) {
        parts[at] = `${bytesFrom(from, tokens[at].bytes.length)} of ${total} of “${text.trim()}”`;
        from += tokens[at].bytes.length;
      }
    }
    group = [];
  });
  return parts;
}
export const bytesFrom = (first, count) =>
  count === 1 ? `byte ${first}` : `bytes ${first} to ${first + count - 1}`;
