// A sign on everything that is wider than its place: the edges behind which something is hidden fade, and a
// line below says that it scrolls.

export function enableScrollHints() {
  let isDue = false;
  const update = (box) => {
    const hidden = box.scrollWidth - box.clientWidth;
    const left = Math.abs(box.scrollLeft);
    box.classList.toggle("overflows", hidden > 1);
    box.classList.toggle("more-before", left > 1);
    box.classList.toggle("more-after", hidden - left > 1);
  };
  // Boxes come and go, and change their size with what is in them: all are looked at, once a frame at most.
  const updateSoon = () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      document.querySelectorAll(".scroll").forEach(update);
    });
  };
  const attributeFilter = ["hidden", "open"];
  const changes = { childList: true, subtree: true, characterData: true, attributeFilter };
  new MutationObserver(updateSoon).observe(document.body, changes);
  addEventListener("resize", updateSoon);
  addEventListener("scroll", ({ target }) => target.classList?.contains("scroll") && update(target), true);
  updateSoon();
}
