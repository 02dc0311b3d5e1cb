"use strict";
(() => {
  // The page about one prediction: all columns, the second unit, a file or a copy.
  const at = id => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  whence.toggle("columns", "all-columns");
  whence.fit();
  whence.toggle("units", "second-unit");
  whence.share(() => data);
  const proof = document.querySelector("details.verified");
  const open = () => { if (location.hash === "#check" && proof) proof.open = true; };
  addEventListener("hashchange", open);
  open();
})();
