// Columns sort at a press of their heading, numbers as numbers; starting one player pauses the others.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const up = head.ariaSort ? head.ariaSort === "descending" : !numeric;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => row.cells[column].textContent.trim();
      const number = row => parseFloat(key(row).replaceAll(",", "").replace("\u2212", "-"));
      const rows = [...body.rows].sort((a, b) => {
        if (!numeric) return (up ? 1 : -1) * key(a).localeCompare(key(b), undefined, { numeric: true });
        const x = number(a), y = number(b);
        return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : (up ? 1 : -1) * (x - y);
      });
      body.append(...rows);
    });
  });
}
document.addEventListener("play", event => {
  for (const player of document.querySelectorAll("audio, video")) if (player !== event.target) player.pause();
}, true);
