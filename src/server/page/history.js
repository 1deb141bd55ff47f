// The texts there have been, as a tree: going back and writing something else begins a branch, and no branch
// is lost.

export class History {
  constructor(text) {
    this.nodes = [{ text, parent: null, children: [], title: "the beginning" }];
    this.current = 0;
  }

  // Adds a text under the current one, which it replaces.
  add(text, title) {
    if (text === this.nodes[this.current].text) return;
    const id = this.nodes.length;
    this.nodes.push({ text, parent: this.current, children: [], title });
    this.nodes[this.current].children.push(id);
    this.current = id;
  }
  get canUndo() {
    return this.nodes[this.current].parent !== null;
  }
  get canRedo() {
    return this.nodes[this.current].children.length > 0;
  }
  // The text before the current one, or after it in the newest branch; null if there is none.
  undo() {
    return this.canUndo ? this.goTo(this.nodes[this.current].parent) : null;
  }
  redo() {
    return this.canRedo ? this.goTo(this.nodes[this.current].children.at(-1)) : null;
  }
  goTo(id) {
    this.current = id;
    return this.nodes[id].text;
  }
  // The nodes in the order of the tree with their depths, where a depth is a branch.
  outline() {
    const lines = [];
    const visit = (id, depth) => {
      const { children, title, text } = this.nodes[id];
      lines.push({ id, depth, title, text });
      children.forEach((child, i) => visit(child, depth + (i > 0 ? 1 : 0)));
    };
    visit(0, 0);
    return lines;
  }
}
