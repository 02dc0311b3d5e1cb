"use strict";
// What a page shows as a file or a copy: `whence.share(rows)` wires the two buttons of a page,
// `whence.toggle(id, name)` a switch that sets a class of the document, `whence.fit()` leaves as many
// columns of rows as the window has room for.
globalThis.whence = (() => {
  const at = id => document.getElementById(id);
  const save = (rows, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv.file(rows)], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const say = text => { at("done").textContent = text; };
  const share = rows => {
    at("save").addEventListener("click", () => save(rows(), "whence.csv"));
    at("copy").addEventListener("click", async () => {
      const text = rows().map(row => row.map(cell => csv.text(cell).replace(/\s+/g, " ")).join("\t")).join("\n");
      let said = "copied";
      try { await navigator.clipboard.writeText(text); } catch { said = "The browser does not allow it: save it as CSV."; }
      say(said);
    });
    at("tools").hidden = false;
  };
  const toggle = (id, name) => at(id)?.addEventListener("click", event => {
    const button = event.currentTarget, on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    document.documentElement.classList.toggle(name, on);
  });
  document.documentElement.classList.add("scripted"); // without a script all columns are shown
  // Where the window has no room, the last columns wait for the switch too; two stay.
  const fit = () => {
    if (!at("columns") || !matchMedia("(min-width: 44rem)").matches) return;
    for (const table of document.querySelectorAll("[data-columns] > table")) {
      const box = table.parentElement, heads = [...table.tHead.rows[0].cells];
      const least = heads.length - Number(box.dataset.columns) + 2;
      let last = heads.filter(head => !head.matches(".more")).length;
      while (box.scrollWidth > box.clientWidth && --last >= least) {
        for (const row of table.rows) row.cells[last]?.classList.add("more");
      }
    }
  };
  return { fit, save, say, share, toggle };
})();
