"use strict";
(() => {
  // Decisions about labels, by button or key, kept in this browser and saved as a file. They are kept
  // twice: a page that is loaded again too soon may not find what it wrote to the local storage.
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data.decide) return;
  const words = { keep: "keep", relabel: "relabel", drop: "drop" };
  const keys = { k: "keep", r: "relabel", d: "drop" };
  const at = id => document.getElementById(id), place = `whence ${location.pathname} ${data.decide.stamp}`;
  const decided = new Map(), changes = [];
  const parsed = text => { try { return JSON.parse(text); } catch { return null; } };
  const stored = () => { try { return localStorage.getItem(place); } catch { return null; /* not allowed here */ } };
  const read = kept => {
    decided.clear();
    const rows = Array.isArray(kept?.rows) ? kept.rows.filter(Array.isArray) : []; // the last decision last, which is undone first
    for (const [r, word] of rows) if (data.rows[r] && words[word]) decided.set(Number(r), word);
  };
  const [last] = [window.history.state?.[place], parsed(stored())].sort((a, b) => (b?.time ?? 0) - (a?.time ?? 0));
  read(last);
  const buttons = new Map(); // of the rows on this page of the table

  const count = () => {
    const found = Object.keys(words).map(word => [word, [...decided.values()].filter(d => d === word).length]);
    at("decided").textContent = decided.size
      ? `${decided.size} of ${data.rows.length} decided: ${found.filter(([, n]) => n).map(([word, n]) => `${n} ${word}`).join(", ")}.` : "Nothing is decided yet.";
    at("decisions").disabled = at("undo").disabled = !decided.size;
  };
  const paint = r => {
    for (const [word, button] of Object.entries(buttons.get(r) || {})) button.setAttribute("aria-pressed", decided.get(r) === word);
    buttons.get(r)?.keep.closest("tr").classList.toggle("decided", decided.has(r));
  };
  const keep = () => {
    const kept = { time: Date.now(), rows: [...decided] };
    try { window.history.replaceState({ ...window.history.state, [place]: kept }, ""); } catch { /* not allowed here */ }
    try { localStorage.setItem(place, JSON.stringify(kept)); } catch { /* not allowed here */ }
  };
  const set = (r, word, back) => {
    if (!back) changes.push([r, decided.get(r)]);
    if (word === undefined || (decided.get(r) === word && !back)) decided.delete(r); else decided.set(r, word);
    keep(); paint(r); count();
  };
  const undo = () => {
    const [r, word] = changes.pop() || [[...decided.keys()].pop()];
    if (r !== undefined) set(r, word, true);
  };

  document.addEventListener("whence:head", ({ detail }) => {
    const th = Object.assign(document.createElement("th"), { scope: "col", className: "of-decision", textContent: "Decision" });
    th.setAttribute("role", "columnheader");
    detail.append(th);
  });
  document.addEventListener("whence:draw", () => buttons.clear());
  document.addEventListener("whence:row", ({ detail: { tr, r, title } }) => {
    const td = Object.assign(document.createElement("td"), { className: "of-decision" });
    td.setAttribute("role", "cell");
    td.dataset.name = "Decision";
    const group = document.createElement("div"), made = {};
    for (const word of Object.keys(words)) {
      if (word === "relabel" && !data.decide.suggested[r]) continue;
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: word });
      button.setAttribute("aria-label", `${word} ${title}`);
      button.addEventListener("click", () => set(r, word));
      made[word] = button;
      group.append(button);
    }
    buttons.set(r, made);
    td.append(group);
    tr.append(td);
    paint(r);
  });
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const key = event.key.toLowerCase(), rows = [...buttons.keys()];
    if (key === "u") { undo(); event.preventDefault(); return; }
    const here = rows.find(r => buttons.get(r).keep.closest("tr").contains(document.activeElement));
    const move = r => { const tr = buttons.get(r)?.keep.closest("tr"); tr?.querySelector("button.open").focus(); tr?.scrollIntoView({ block: "nearest" }); };
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const next = rows[here === undefined ? 0 : rows.indexOf(here) + (event.key === "ArrowDown" ? 1 : -1)];
      if (next !== undefined && here !== undefined) { move(next); event.preventDefault(); }
      return;
    }
    const r = here ?? rows.find(row => !decided.has(row));
    if (!keys[key] || r === undefined || !buttons.get(r)[keys[key]]) return;
    event.preventDefault();
    set(r, keys[key]);
    move(rows[rows.indexOf(r) + 1] ?? r);
  });
  addEventListener("storage", event => { // the same page in another tab
    if (event.key !== place) return;
    read(parsed(event.newValue));
    for (const r of buttons.keys()) paint(r);
    count();
  });
  at("undo").addEventListener("click", undo);
  at("decisions").addEventListener("click", () => {
    const rows = [...decided].sort((a, b) => a[0] - b[0]).map(([r, word]) => {
      const label = data.items[r].label ?? "", suggested = data.decide.suggested[r] ?? "";
      return [data.decide.names[r], label, word, word === "drop" ? "" : word === "relabel" ? suggested : label];
    });
    whence.save([["id", "label", "decision", "new label"], ...rows], "decisions.csv");
  });
  at("deciding").hidden = false;
  count();
})();
