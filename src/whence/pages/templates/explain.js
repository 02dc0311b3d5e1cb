"use strict";
(() => {
  // The page about one prediction: all columns, the second unit, a file or a copy.
  const at = id => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  whence.toggle("columns", "all-columns");
  // Where the window has no room, the last columns wait for the switch too; two stay.
  const box = document.querySelector(".scroll.wide"), heads = [...document.querySelectorAll("#effects thead th")];
  let last = heads.filter(head => !head.matches(".more")).length;
  while (at("columns") && matchMedia("(min-width: 44rem)").matches && box.scrollWidth > box.clientWidth && --last > 5) {
    for (const row of document.querySelectorAll("#effects tr")) row.cells[last]?.classList.add("more");
  }
  whence.toggle("units", "second-unit");
  whence.share(() => data);
  const proof = document.querySelector("details.verified");
  const open = () => { if (location.hash === "#check" && proof) proof.open = true; };
  addEventListener("hashchange", open);
  open();
})();
