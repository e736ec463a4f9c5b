"use strict";
// Filters and sorts each run's questions; the page reads the same without it.
for (const panel of document.querySelectorAll(".questions")) {
  const controls = panel.querySelector(".controls");
  const list = panel.querySelector(".list");
  const items = [...list.children];
  const shown = panel.querySelector(".shown");
  const [words, show, order] = controls.querySelectorAll("input, select");
  const by = {
    place: (item) => Number(item.dataset.place),
    votes: (item) => -Number(item.dataset.votes),
    confidence: (item) => Number(item.dataset.confidence),
  };
  const update = () => {
    const asked = words.value.trim().toLowerCase();
    let count = 0;
    for (const item of items) {
      const fits =
        (!asked || item.textContent.toLowerCase().includes(asked)) &&
        (!show.value || item.dataset.kind === show.value || item.dataset.correct === show.value);
      item.hidden = !fits;
      count += fits;
    }
    items.sort((a, b) => by[order.value](a) - by[order.value](b) || by.place(a) - by.place(b));
    list.append(...items);
    shown.textContent = count === items.length ? "" : `${count} of ${items.length}`;
  };
  controls.hidden = false;
  controls.addEventListener("input", update);
}
