"use strict";
// The explorer, in a page of its own or below a cell of a notebook. `root` is the document or shadow
// root that holds its elements; `ask(name, body)` reaches Python; `first` is the prediction that is
// shown first, or NaN; `chose` is told which one is shown. Answers only become text nodes and numbers.
const explorer = (root, { ask, first, chose }) => {
  const at = id => root.getElementById(id);
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const drawing = (name, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const each in attributes) element.setAttribute(each, attributes[each]);
    element.append(...children);
    return element;
  };
  const plural = (count, one) => `${count.toLocaleString("en-US")} ${one}${count === 1 ? "" : "s"}`;

  const state = { predictions: [], heading: "", rows: null, query: 0, answer: null, ticked: new Map(), asked: 0 };
  const triage = { rows: null, at: 0, decisions: new Map(), history: [] };

  let running = 0;
  const tell = (words, bad = false) => {
    at("status").classList.toggle("failed", bad);
    at("status").textContent = words;
  };
  const failed = error => tell(error.message, true);
  const doing = async (words, work) => {
    running++;
    at("explorer").dataset.busy = "yes";
    tell(words);
    let fault = null;
    try { await work(); } catch (error) { fault = error; }
    running--;
    if (!running) at("explorer").dataset.busy = "no";
    if (fault) failed(fault); else if (!running) tell("");
  };

  const bar = (size, color) => drawing("svg", { class: `bar ${color}`, "aria-hidden": "true" },
    drawing("rect", { class: "track", width: "100%", height: 8, y: 2, rx: 4 }),
    drawing("rect", { class: "size", width: `${(100 * size).toFixed(1)}%`, height: 8, y: 2, rx: 4 }));

  // Left: predictions, or training rows by how many predictions they are behind.
  const orders = {
    query: [["file order", null], ["least sure first", (a, b) => a.value - b.value], ["most sure first", (a, b) => b.value - a.value], ["label", (a, b) => a.label.localeCompare(b.label)], ["what the model says", (a, b) => a.says.localeCompare(b.says)]],
    row: [["most harm first", null], ["most help first", (a, b) => b.toward - a.toward], ["name", (a, b) => a.name.localeCompare(b.name, "en", { numeric: true })]],
  };
  const fillOrders = () => {
    const regression = state.heading === "off by";
    at("order").replaceChildren(...orders[at("by").value].map(([name], i) => make("option", { value: String(i), textContent:
      regression && at("by").value === "query" ? name.replace("least sure", "closest").replace("most sure", "furthest off") : name })));
    at("only").hidden = at("by").value === "row" || !state.predictions.some(row => row.wrong);
  };
  const drawList = () => {
    const by = at("by").value, order = orders[by][Number(at("order").value)]?.[1];
    let shown = by === "query" ? state.predictions.map((row, query) => ({ ...row, query })) : [...(state.rows?.rows ?? [])];
    if (by === "query" && at("mistakes").checked) shown = shown.filter(row => row.wrong);
    if (order) shown.sort(order);
    at("count").textContent = by === "query" ? `${plural(shown.length, "prediction")}, by ${state.heading}`
      : `${plural(shown.length, "training row")} among the ten strongest of a prediction`;
    at("list").replaceChildren(...shown.map(row => {
      const words = by === "query"
        ? [make("span", { className: "name", dir: "auto", textContent: row.name }), " ",
          make("span", { className: row.wrong ? "wrong" : "", dir: "auto", textContent: `says ${row.says}${row.label && row.label !== row.says ? `, is ${row.label}` : ""}` }),
          ` · ${row.text}`]
        : [make("span", { className: "name", dir: "auto", textContent: row.name }), ` ${row.label}: ${row.against} ${state.rows.names[0]}, ${row.toward} ${state.rows.names[1]}`];
      const button = make("button", { type: "button" }, ...words);
      if (by === "query") {
        button.dataset.query = row.query;
        button.setAttribute("aria-current", row.query === state.query);
        button.addEventListener("click", () => choose(row.query));
      } else {
        button.dataset.position = row.position;
        button.addEventListener("click", () => openRow(row.position));
      }
      return make("li", {}, button);
    }));
  };
  const loadList = async () => {
    const found = await ask("predictions");
    state.predictions = found.rows;
    state.heading = found.heading;
    at("accuracy").textContent = found.accuracy;
    drawLog(found.steps);
    state.rows = at("by").value === "row" ? await ask("rows") : null;
    fillOrders();
    drawList();
  };

  // Middle: the answer with its bar.
  const meter = answer => {
    if (answer.scale) {
      const { low, high, predicted, texts } = answer.scale;
      const place = value => `${(100 * Math.min(1, Math.max(0, (value - low) / (high - low || 1)))).toFixed(2)}%`;
      return [make("p", { className: "said", dir: "auto", textContent: answer.words }),
        drawing("svg", { class: "meter", "aria-hidden": "true" }, drawing("rect", { class: "toward", width: place(predicted), height: "100%" })),
        make("p", { className: "soft", textContent: `training targets go from ${texts[0]} to ${texts[1]}${texts[3] ? `; in the data it is ${texts[3]}` : ""}` })];
    }
    if (!answer.shares.length) return [make("p", { className: "said", dir: "auto", textContent: answer.words })];
    let passed = 0;
    return [make("ul", { className: "shares" }, ...answer.shares.map(share => make("li", {},
      make("strong", { dir: "auto", textContent: `${share.name} ${share.text}` }), ...(share.note ? [make("span", { className: "soft", textContent: ` (${share.note})` })] : [])))),
    drawing("svg", { class: "meter", "aria-hidden": "true" }, ...answer.shares.map((share, i) => {
      const rect = drawing("rect", { class: `${share.color} p${i + 1}`, x: `${(100 * passed).toFixed(2)}%`, width: `${(100 * share.share).toFixed(2)}%`, height: "100%" });
      passed += share.share;
      return rect;
    }))];
  };
  const excerpt = row => row.text ? row.text.slice(0, 160) : row.cells.slice(0, 6).map((cell, i) => `${state.answer.columns[i]}: ${cell}`).join(", ");
  const drawAnswer = () => {
    const answer = state.answer;
    at("middle").textContent = answer.name;
    at("answer").replaceChildren(...meter(answer));
    at("own").hidden = !answer.cells.length && !answer.text;
    at("cells").replaceChildren(...(answer.text ? [make("p", { className: "text", dir: "auto", textContent: answer.text })] : []),
      make("table", { className: "columns" }, make("tbody", {}, ...answer.cells.map((cell, i) =>
        make("tr", {}, make("th", { scope: "row", dir: "auto", textContent: answer.columns[i] }), make("td", { dir: "auto", textContent: cell }))))));
    if (at("column").options.length !== answer.columns.length + 1) {
      at("column").replaceChildren(make("option", { value: "", textContent: "choose a column" }),
        ...answer.columns.map((name, i) => make("option", { value: String(i), textContent: name })));
    }
    at("column").parentElement.hidden = !answer.columns.length;
    at("sides").replaceChildren(...answer.sides.map(side => make("section", { className: "side" },
      make("h3", { className: side.color, dir: "auto", textContent: `push ${side.phrase}` }),
      ...(side.rows.length ? side.rows.map(row => {
        const box = make("input", { type: "checkbox", checked: state.ticked.has(row.position) });
        box.dataset.position = row.position;
        box.addEventListener("change", () => tick(row.position, row.name, box.checked));
        const open = make("button", { type: "button", className: "open", dir: "auto", textContent: row.label ? `${row.name} · ${row.label}` : row.name });
        open.addEventListener("click", () => openRow(row.position));
        const number = make("span", { className: "effect" });
        number.dataset.size = row.position;
        const label = make("label", {}, box, make("span", { className: "unseen", textContent: `tick ${row.name}` }));
        return make("div", { className: "behind-row" }, label, make("div", {}, ...(row.image ? [make("img", { src: row.image, alt: "" })] : []), open), number,
          bar(row.size, row.color), make("span", { className: "excerpt", dir: "auto", textContent: excerpt(row) }));
      }) : [make("p", { className: "soft", textContent: "None does." })]))));
  };
  const drawSizes = async () => {
    const asked = ++state.asked, query = state.query;
    const positions = state.answer.sides.flatMap(side => side.rows.map(row => row.position));
    const { texts, sizes } = await ask("sizes", { query, positions });
    if (asked !== state.asked) return; // another prediction was chosen meanwhile
    if (Object.keys(sizes).length) { // from the order of the first order to that of the numbers
      for (const side of state.answer.sides) {
        for (const row of side.rows) row.size = sizes[row.position];
        side.rows.sort((a, b) => b.size - a.size);
      }
      const held = at("sides").contains(root.activeElement) ? root.activeElement.dataset.position : undefined;
      drawAnswer();
      if (held !== undefined) at("sides").querySelector(`[data-position="${Number(held)}"]`)?.focus();
    }
    for (const span of root.querySelectorAll("#sides .effect")) span.textContent = texts[span.dataset.size] ?? "";
    at("explorer").dataset.sized = String(query);
  };
  const choose = query => doing("", async () => {
    state.query = query;
    state.answer = await ask("answer", { query });
    at("changed").hidden = true;
    at("groups").replaceChildren();
    at("column").value = "";
    drawAnswer();
    for (const button of at("list").querySelectorAll("button")) button.setAttribute("aria-current", Number(button.dataset.query) === query);
    chose(query);
    at("explorer").dataset.query = String(query);
    drawSizes().catch(failed);
  });

  // Ticks, and what is done with them.
  const drawTicked = () => {
    const names = [...state.ticked.values()];
    at("ticked").textContent = names.length ? `${plural(names.length, "row")} ticked: ${names.slice(0, 8).join(", ")}${names.length > 8 ? ", …" : ""}` : "No rows are ticked.";
    at("remove").disabled = at("clear").disabled = !names.length;
    for (const box of root.querySelectorAll("#sides input")) box.checked = state.ticked.has(Number(box.dataset.position));
  };
  const tick = (position, name, on) => {
    if (on) state.ticked.set(position, name); else state.ticked.delete(position);
    drawTicked();
  };
  const drawLog = steps => {
    at("log").replaceChildren(...steps.map(step => make("li", { dir: "auto", textContent: `${step.words} ${step.query}: ${step.before} → ${step.after}` })));
    at("undo").disabled = at("save-page").disabled = at("save-script").disabled = !steps.length;
  };
  const took = async found => {
    state.answer = found.after;
    drawAnswer();
    const [before, after] = found.accuracy;
    at("changed").hidden = false;
    at("changed").replaceChildren(make("p", { className: "soft", textContent: "before" }), ...meter(found.before),
      make("p", { dir: "auto", textContent: `${found.before.value} → ${found.after.value}, retrained${before ? `; ${before} → ${after}` : ""}` }));
    triage.rows = null;
    at("row").hidden = true;
    await loadList();
    drawTicked();
    at("explorer").dataset.sized = "";
    drawSizes().catch(failed);
  };
  const step = (name, body, words = "retraining …") => doing(words, async () => took(await ask(name, { query: state.query, ...body })));
  at("remove").addEventListener("click", async () => {
    const positions = [...state.ticked.keys()];
    await step("remove", { positions }, `retraining without ${plural(positions.length, "row")} …`);
    if (!at("status").classList.contains("failed")) { state.ticked.clear(); drawTicked(); }
  });
  at("clear").addEventListener("click", () => { state.ticked.clear(); drawTicked(); });
  at("undo").addEventListener("click", () => step("undo", {}, "going back …"));
  at("flip").addEventListener("click", () => doing("looking for the fewest, retraining …", async () => {
    const found = await ask("flip", { query: state.query });
    state.ticked.clear();
    for (const position of found.positions) state.ticked.set(position, `#${position}`);
    drawTicked();
    at("ticked").textContent = found.words;
  }));
  at("column").addEventListener("change", () => doing("", async () => {
    const column = at("column").value;
    const found = column === "" ? { groups: [] } : await ask("groups", { query: state.query, column: Number(column) });
    at("groups").replaceChildren(...found.groups.map(group => {
      const button = make("button", { type: "button" }, make("span", { className: "name", dir: "auto", textContent: group.name }),
        ` ${plural(group.positions.length, "row")}, together push ${group.phrase}`, bar(group.size, group.color));
      button.addEventListener("click", () => {
        for (const position of group.positions) state.ticked.set(position, `#${position}`);
        drawTicked();
        at("ticked").textContent = `${plural(group.positions.length, "row")} of the group ${group.name} ticked.`;
      });
      return make("li", {}, button);
    }));
  }));
  const save = (name, type, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const saveLog = (name, route, type) => () => doing("saving …", async () => save(name, type, (await ask(route)).text));
  at("save-page").addEventListener("click", saveLog("whence-log.html", "log_page", "text/html"));
  at("save-script").addEventListener("click", saveLog("whence-log.py", "log_script", "text/x-python"));

  // One training row: its cells to edit, and the predictions that it pushes.
  const openRow = position => doing("", async () => {
    const row = await ask("row", { position });
    const field = (name, input, act, words) => {
      const id = `field-${at("row").querySelectorAll("input, select").length}-${name}`.replace(/\W/g, "-");
      input.id = id + Math.random().toString(36).slice(2);
      const button = make("button", { type: "button", textContent: words });
      button.addEventListener("click", act);
      return [make("label", { htmlFor: input.id, dir: "auto", textContent: name }), input, button];
    };
    const fields = make("div", { className: "fields" });
    if (row.classes.length) {
      const select = make("select", {}, ...row.classes.map(name => make("option", { textContent: name, selected: name === row.label })));
      fields.append(...field("label", select, () => step("relabel", { position, label: select.value }), "relabel and retrain"));
    } else if (row.label) {
      const input = make("input", { type: "text", value: row.label });
      fields.append(...field("target", input, () => step("relabel", { position, label: input.value }), "change and retrain"));
    }
    if (row.editable) {
      row.cells.forEach((cell, column) => {
        const input = make("input", { type: "text", value: cell === "missing" ? "" : cell, placeholder: "missing" });
        fields.append(...field(row.columns[column], input, () => step("edit", { position, column, value: input.value }), "change and retrain"));
      });
    }
    const pushes = make("ul", { className: "list" }, ...row.pushes.map(push => {
      const button = make("button", { type: "button" }, make("span", { className: "name", dir: "auto", textContent: push.name }), ` pushed ${push.phrase}`, bar(push.size, push.color));
      button.addEventListener("click", () => choose(push.query));
      return make("li", {}, button);
    }));
    const mark = make("button", { type: "button", textContent: "tick this row" });
    mark.addEventListener("click", () => tick(position, row.name, true));
    at("row").replaceChildren(make("h3", { dir: "auto", textContent: `Training row ${row.name}` }), mark,
      ...(row.text ? [make("p", { className: "text", dir: "auto", textContent: row.text })] : []), fields, make("h3", { textContent: "Predictions that it pushes most" }), pushes);
    at("row").hidden = false;
    at("row").dataset.position = position;
    at("row").scrollIntoView({ block: "nearest" });
  });

  at("by").addEventListener("change", () => doing("", async () => {
    at("left").textContent = at("by").value === "query" ? "Predictions" : "Training rows";
    if (at("by").value === "row" && !state.rows) state.rows = await ask("rows");
    fillOrders();
    drawList();
  }));
  at("order").addEventListener("change", drawList);
  at("mistakes").addEventListener("change", drawList);

  // Labels to check: a decision for each, by key.
  const said = { keep: "keep", relabel: "relabel", drop: "drop" };
  const drawTriage = () => {
    const { rows, decisions } = triage;
    at("suspect-head").replaceChildren(...["row", "label", "suggested", "score", "decision", ...(rows.length ? triage.columns.slice(0, 8) : [])].map(name => make("th", { scope: "col", dir: "auto", textContent: name })));
    at("suspects").replaceChildren(...rows.map((row, i) => {
      const decision = decisions.get(row.position);
      const tr = make("tr", {}, make("th", { scope: "row", dir: "auto", textContent: row.name }), make("td", { dir: "auto", textContent: row.label }),
        make("td", { dir: "auto", textContent: row.suggested }), make("td", { textContent: row.score }), make("td", { className: "decision", textContent: decision ?? "" }),
        ...(row.cells.length ? row.cells.slice(0, 8) : row.text ? [row.text.slice(0, 200)] : []).map(cell => make("td", { dir: "auto", textContent: cell })));
      tr.setAttribute("aria-selected", i === triage.at);
      tr.addEventListener("click", () => { triage.at = i; drawTriage(); });
      return tr;
    }));
    const count = name => [...decisions.values()].filter(each => each === name).length;
    at("decided").textContent = `${decisions.size} of ${rows.length} decided: ${count("keep")} kept, ${count("relabel")} relabeled, ${count("drop")} dropped`;
    at("back").disabled = !triage.history.length;
    at("export").disabled = !decisions.size;
    at("decide").disabled = !count("relabel") && !count("drop");
    at("suspects").children[triage.at]?.scrollIntoView({ block: "nearest" });
  };
  const decide = name => {
    const row = triage.rows?.[triage.at];
    if (!row) return;
    triage.history.push([triage.at, row.position, triage.decisions.get(row.position)]);
    triage.decisions.set(row.position, said[name]);
    triage.at = Math.min(triage.at + 1, triage.rows.length - 1);
    drawTriage();
  };
  const back = () => {
    const last = triage.history.pop();
    if (!last) return;
    const [place, position, before] = last;
    if (before) triage.decisions.set(position, before); else triage.decisions.delete(position);
    triage.at = place;
    drawTriage();
  };
  const move = by => { triage.at = Math.max(0, Math.min(triage.rows.length - 1, triage.at + by)); drawTriage(); };
  for (const name of ["keep", "relabel", "drop"]) at(name).addEventListener("click", () => decide(name));
  at("back").addEventListener("click", back);
  root.addEventListener("keydown", event => {
    const typing = event.target.closest?.("input, select, textarea");
    if (at("labels").hidden || typing || event.ctrlKey || event.metaKey || event.altKey || !triage.rows) return;
    const act = { k: () => decide("keep"), r: () => decide("relabel"), d: () => decide("drop"), u: back, ArrowDown: () => move(1), ArrowUp: () => move(-1) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  at("export").addEventListener("click", () => {
    const rows = triage.rows.filter(row => triage.decisions.has(row.position));
    const lines = [["row", "label", "decision", "new label"], ...rows.map(row => {
      const decision = triage.decisions.get(row.position);
      return [row.name, row.label, decision, decision === "relabel" ? row.suggested : decision === "keep" ? row.label : ""];
    })];
    save("whence-labels.csv", "text/csv", csv.file(lines));
  });
  at("decide").addEventListener("click", () => doing("retraining with your decisions …", async () => {
    const chosen = triage.rows.filter(row => triage.decisions.has(row.position));
    const of = name => chosen.filter(row => triage.decisions.get(row.position) === name);
    const relabel = of("relabel").map(row => ({ position: row.position, label: row.suggested }));
    const found = await ask("decide", { query: state.query, relabel, drop: of("drop").map(row => row.position) });
    at("verdict").textContent = found.accuracy[0] ? `Retrained: ${found.accuracy[0]} → ${found.accuracy[1]}` : "Retrained.";
    await took(found);
    triage.decisions.clear();
    triage.history = [];
    await loadTriage();
  }));
  const loadTriage = async () => {
    const found = await ask("suspects");
    Object.assign(triage, { rows: found.rows, columns: found.columns, at: 0 });
    at("ranked").textContent = `Ranked by ${found.ranked_by}.`;
    drawTriage();
  };
  const view = name => () => doing(name === "labels" ? "looking for wrong labels …" : "", async () => {
    at("explore").hidden = name !== "explore";
    at("labels").hidden = name !== "labels";
    at("view-explore").setAttribute("aria-pressed", name === "explore");
    at("view-labels").setAttribute("aria-pressed", name === "labels");
    if (name === "labels" && !triage.rows) await loadTriage();
  });
  at("view-explore").addEventListener("click", view("explore"));
  at("view-labels").addEventListener("click", view("labels"));

  at("explorer").hidden = false;
  doing("scoring all training rows …", async () => {
    await loadList();
    const mistake = Math.max(0, state.predictions.findIndex(row => row.wrong));
    await choose(first >= 0 && first < state.predictions.length ? first : mistake);
  });
};
