"use strict";
(() => {
  // Switches of the page about one prediction: all columns, the second unit, a file or a copy.
  const at = id => document.getElementById(id), root = document.documentElement;
  const data = JSON.parse(at("data").textContent);
  const toggle = (button, name) => button?.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    root.classList.toggle(name, on);
  });
  root.classList.add("scripted"); // without a script all columns are shown
  toggle(at("columns"), "all-columns");
  toggle(at("units"), "second-unit");
  whence.share(() => data);
  const proof = document.querySelector("details.verified");
  const open = () => { if (location.hash === "#check" && proof) proof.open = true; };
  addEventListener("hashchange", open);
  open();
})();
