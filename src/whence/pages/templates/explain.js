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
  // A spreadsheet runs a text that starts so; numbers stay numbers.
  const inert = value => /^[=+\-@\t\r]/.test(value) && !/^[+-]?[\d.,]+(e[+-]?\d+)?\s?%?$/i.test(value) ? `'${value}` : value;
  const quoted = value => /[",\n\r]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value;
  at("save").addEventListener("click", () => {
    const text = data.map(row => row.map(inert).map(quoted).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff" + text], { type: "text/csv" }));
    link.download = "whence.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  at("copy").addEventListener("click", async () => {
    const text = data.map(row => row.map(inert).join("\t")).join("\n");
    let said = "copied";
    try { await navigator.clipboard.writeText(text); } catch { said = "The browser does not allow it: save it as CSV."; }
    at("done").textContent = said;
  });
  const proof = document.querySelector("details.verified");
  const open = () => { if (location.hash === "#check" && proof) proof.open = true; };
  addEventListener("hashchange", open);
  open();
  at("tools").hidden = false;
})();
