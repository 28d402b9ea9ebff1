"use strict";
// Fills the galleries, sorts tables, shows the images of a cell. All data is inside the page.
(() => {
  const data = JSON.parse(document.getElementById("embedded").textContent);

  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function fill(card, row, withMap) {
    const [path, label, prediction, confidence] = data.records[row];
    const images = element("div", "images");
    for (const [key, what] of [[row, "The image"], ["cam-" + row, "Grad-CAM of the image"]]) {
      if (!data.pictures[key] || (key !== row && !withMap)) continue;
      const image = element("img");
      image.src = data.pictures[key];
      image.alt = `${what} ${path}`;
      image.decoding = "async";
      images.append(image);
    }
    const caption = element("figcaption");
    caption.append(element("span", label === prediction ? "right" : "wrong", prediction || "(none)"));
    caption.append(` ${(100 * confidence).toFixed(1)}%`);
    if (label !== prediction) caption.append(`, labelled ${label || "(nothing)"}`);
    caption.append(element("span", "path", path));
    if (images.childElementCount) card.append(images);
    card.append(caption);
  }

  for (const card of document.querySelectorAll(".card[data-row]")) fill(card, card.dataset.row, true);

  function value(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  }

  function compare(first, second) {
    return typeof first === "number" ? first - second : first.localeCompare(second, undefined, { numeric: true });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element("button", "", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((first, second) => (up ? 1 : -1) * compare(value(first, column), value(second, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  function showCell() {
    const match = location.hash.match(/^#cell-(\d+)-(\d+)$/);
    if (!match) return;
    const key = `${match[1]}-${match[2]}`;
    const rows = data.cells[key] || [];
    const total = data.sizes[key] || 0;
    const more = total > rows.length ? `, the ${rows.length} most confident` : "";
    document.getElementById("cell-title").textContent =
      `${data.classes[match[1]]} taken for ${data.classes[match[2]]}: ${total} image${total === 1 ? "" : "s"}${more}`;
    document.getElementById("cell-images").replaceChildren(...rows.map((row) => {
      const card = element("figure", "card");
      card.setAttribute("role", "listitem");
      fill(card, String(row), false);
      return card;
    }));
    document.querySelectorAll(".matrix a.chosen").forEach((link) => link.classList.remove("chosen"));
    const link = document.querySelector(`.matrix a[href="#cell-${key}"]`);
    if (link) link.classList.add("chosen");
    const panel = document.getElementById("cell");
    panel.hidden = false;
    panel.focus({ preventScroll: true });
    panel.scrollIntoView({ block: "nearest" });
  }

  for (const link of document.querySelectorAll(".matrix a")) {
    const [, row, column] = link.getAttribute("href").match(/^#cell-(\d+)-(\d+)$/);
    const name = `true ${data.classes[row]}, predicted ${data.classes[column]}: ${data.sizes[`${row}-${column}`]}`;
    link.setAttribute("aria-label", name);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = name;
    link.prepend(title);
  }
  // The same cell chosen twice changes no hash, so the click is listened to as well.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#cell-"]');
    if (link && link.getAttribute("href") === location.hash) showCell();
  });
  window.addEventListener("hashchange", showCell);
  showCell();

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();
