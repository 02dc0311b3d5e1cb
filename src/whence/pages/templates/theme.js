"use strict";
(() => {
  // Light, dark, or what the system says. On a phone what folds is closed; for printing all is open.
  const root = document.documentElement, button = document.getElementById("theme");
  const names = ["system", "light", "dark"];
  const show = name => {
    if (name === "system") delete root.dataset.theme;
    else root.dataset.theme = name;
    button.querySelector("span").textContent = name;
  };
  let kept = null;
  try { kept = localStorage.getItem("whence-theme"); } catch { /* storage may be forbidden */ }
  let now = names.includes(kept) ? kept : "system";
  show(now);
  button.hidden = false;
  button.addEventListener("click", () => {
    now = names[(names.indexOf(now) + 1) % names.length];
    show(now);
    try { localStorage.setItem("whence-theme", now); } catch { /* the choice then lasts one visit */ }
  });
  const phone = matchMedia("(max-width: 44rem)");
  const fold = () => { for (const details of document.querySelectorAll("details.fold")) details.open = !phone.matches; };
  phone.addEventListener("change", fold);
  fold();
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
