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
