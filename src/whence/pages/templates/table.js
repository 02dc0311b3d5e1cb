"use strict";
(() => {
  // Draws one page of rows at a time, so that ten thousand stay smooth. Text only ever becomes
  // a text node: nothing in the data can become markup.
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const thousands = value => value.toLocaleString("en-US");

  // A number with its text is a pair.
  const plain = value => Array.isArray(value) ? value[0] : value;

  // Two digits at least, three decimals at least, six at most: as elsewhere on these pages.
  const number = value => {
    if (Array.isArray(value)) return value[1];
    if (value === null) return "not known";
    const decimals = Math.min(6, Math.max(3, value ? 1 - Math.floor(Math.log10(Math.abs(value))) : 3));
    const tiny = value !== 0 && Math.abs(value) < 0.5 * 10 ** -decimals;
    const text = tiny || Math.abs(value) >= 1e9 ? value.toExponential(1)
      : value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    return text.replace(/-/g, "−");
  };

  const largest = data.columns.map((column, c) => {
    let most = 0;
    for (const row of data.rows) {
      for (const value of column.kind === "effects" ? row[c].map(effect => effect[1]) : [plain(row[c])]) {
        most = Math.max(most, Math.abs(value) || 0);
      }
    }
    return most || 1;
  });
  const effects = data.columns.flatMap((column, c) => column.kind === "effects" ? [c] : []);
  const scale = Math.max(0, ...effects.map(c => largest[c])) || 1;

  // What a column is sorted by, and what a search looks through.
  const key = (row, c) => {
    const cell = row[c];
    switch (data.columns[c].kind) {
      case "item": return data.items[cell].title;
      case "effects": return cell.length ? Math.abs(cell[0][1]) : null;
      default: return plain(cell);
    }
  };
  const columnsOf = item => (item.cells || []).map((value, c) => [data.names[c], value]);
  const words = item => [item.title, item.label, item.predicted, item.text, ...columnsOf(item).flat()].join("\n");
  const haystacks = new Map();
  const haystack = r => {
    if (!haystacks.has(r)) {
      const row = data.rows[r];
      haystacks.set(r, data.columns.map((column, c) => {
        if (column.kind === "item") return words(data.items[row[c]]);
        if (column.kind === "effects") return row[c].map(effect => words(data.items[effect[0]])).join("\n");
        return column.kind === "text" ? row[c] : "";
      }).join("\n").toLowerCase());
      haystacks.set(r, `\n${haystacks.get(r)}\n`);
    }
    return haystacks.get(r);
  };

  const state = { sort: -1, down: false, page: 0, search: "", filters: new Map(), mistakes: false, open: new Set() };
  let found = [];

  const find = silent => {
    // A word, or a whole line between quotation marks.
    const terms = [...state.search.toLowerCase().matchAll(/"([^"]+)"|[^\s"]+/g)].map(([word, line]) => line ? `\n${line}\n` : word);
    found = [];
    data.rows.forEach((row, r) => {
      for (const [c, value] of state.filters) if (row[c] !== value) return;
      if (state.mistakes && row[data.differ.columns[0]] === row[data.differ.columns[1]]) return;
      if (terms.length) {
        const text = haystack(r);
        if (!terms.every(term => text.includes(term))) return;
      }
      found.push(r);
    });
    const turn = state.down ? -1 : 1, c = state.sort;
    if (c < 0) {
      if (state.down) found.reverse();
    } else {
      const keys = new Map(found.map(r => [r, key(data.rows[r], c)]));
      found.sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        if (x === null || y === null) return (x === null) - (y === null) || a - b; // unknown last
        return turn * (typeof x === "number" ? x - y : collator.compare(x, y)) || a - b;
      });
    }
    state.page = 0;
    if (silent !== true) draw();
  };

  const thumbnail = item => {
    const image = make("img", { src: item.image, alt: "" });
    image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) < 64));
    return image;
  };
  const named = item => item.label ? `${item.title}, labeled\u00a0${item.label}` : item.title;
  const excerpt = item => {
    if (item.text) return item.text.length > 140 ? item.text.slice(0, 140) + "…" : item.text;
    return columnsOf(item).slice(0, 3).map(([name, value]) => `${name}: ${value}`).join(", ");
  };
  const bar = (value, most, side) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", `bar ${side}`);
    svg.setAttribute("aria-hidden", "true");
    for (const [name, width] of [["track", 100], ["size", 100 * Math.abs(value) / most]]) {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const shape = { class: name, width: `${width}%`, height: 6, y: 3, rx: 3 };
      for (const attribute in shape) rect.setAttribute(attribute, shape[attribute]);
      svg.append(rect);
    }
    return svg;
  };

  const cell = (row, c, toggle) => {
    const column = data.columns[c], value = row[c];
    const td = make(column.kind === "item" ? "th" : "td", { className: `of-${column.kind}` });
    td.setAttribute("role", column.kind === "item" ? "rowheader" : "cell");
    if (column.kind === "item") td.scope = "row";
    td.dataset.name = column.name;
    if (column.kind === "item") {
      const item = data.items[value];
      if (item.image) td.append(thumbnail(item));
      td.append(make("div", {}, toggle, make("span", { className: "excerpt", dir: "auto", textContent: excerpt(item) })));
    } else if (column.kind === "effects") {
      if (!value.length) td.append(make("span", { className: "soft", textContent: "none" }));
      else {
        const [example, effect, text] = value[0], item = data.items[example];
        if (item.image) td.append(thumbnail(item));
        td.append(make("div", {},
          make("div", { className: "length" }, ...(text ? [make("span", { className: `effect ${column.side}`, textContent: text })] : []), bar(effect, scale, column.side)),
          make("span", { className: "excerpt", dir: "auto", textContent: named(item).replace("Training example ", "") })));
      }
    } else if (column.kind === "number") {
      td.append(make("div", {}, make("span", { textContent: number(value) }), ...(column.bar && plain(value) !== null ? [bar(plain(value), largest[c], "")] : [])));
    } else {
      td.append(make("span", { dir: "auto", textContent: value ?? "none" }));
      if (c === data.differ?.columns[1] && value !== row[data.differ.columns[0]]) {
        td.classList.add("differs");
        td.firstChild.append(make("span", { textContent: "\u00a0≠", title: data.differ.title }));
      }
    }
    return td;
  };

  const whole = item => {
    const box = make("div", { className: "whole" });
    if (item.image) box.append(Object.assign(thumbnail(item), { alt: named(item) }));
    if (item.text) box.append(make("p", { className: "text", dir: "auto", tabIndex: 0, textContent: item.text }));
    if (item.cells) {
      box.append(make("table", { className: "columns" }, make("tbody", {}, ...columnsOf(item).map(([name, value]) =>
        make("tr", {}, make("th", { scope: "row", dir: "auto", textContent: name }), make("td", { dir: "auto", textContent: value }))))));
    }
    return box;
  };
  const detail = row => {
    const box = make("div", { className: "detail" }, whole(data.items[row[0]]));
    for (const c of effects) {
      const column = data.columns[c];
      box.append(make("div", {}, make("h3", { textContent: column.name }), row[c].length
        ? make("ol", { className: "behind" }, ...row[c].map(([example, effect, text]) => {
          const item = data.items[example];
          return make("li", {}, ...(item.image ? [thumbnail(item)] : []), make("div", {},
            ...(text ? [make("span", { className: `effect ${column.side}`, textContent: text })] : []),
            bar(effect, scale, column.side),
            make("span", { dir: "auto", textContent: named(item) }),
            make("span", { className: "excerpt", dir: "auto", textContent: excerpt(item) }),
            ...(item.cells ? [make("details", {}, make("summary", { textContent: "all of it" }), whole({ cells: item.cells }))] : [])));
        }))
        : make("p", { className: "soft", textContent: "none" })));
    }
    return box;
  };

  const body = document.querySelector("table.rows tbody");
  const line = r => {
    const row = data.rows[r];
    const toggle = make("button", { type: "button", className: "open", dir: "auto", textContent: data.items[row[0]].title });
    const rank = make("a", { href: `#open=${r + 1}`, textContent: thousands(r + 1) });
    rank.setAttribute("aria-label", `Link to row ${r + 1}`);
    const tr = make("tr", {}, make("td", { className: "rank" }, rank), ...data.columns.map((column, c) => cell(row, c, toggle)));
    tr.setAttribute("role", "row");
    tr.firstChild.setAttribute("role", "cell");
    tr.firstChild.dataset.name = "#";
    let more = null;
    const set = open => {
      toggle.setAttribute("aria-expanded", open);
      if (open && !more) {
        const td = make("td", { colSpan: tr.children.length }, detail(row));
        td.setAttribute("role", "cell");
        more = make("tr", { className: "more" }, td);
        more.setAttribute("role", "row");
        tr.after(more);
      } else if (!open && more) { more.remove(); more = null; }
    };
    toggle.addEventListener("click", () => {
      if (state.open.has(r)) state.open.delete(r); else state.open.add(r);
      set(state.open.has(r));
      remember();
    });
    rank.addEventListener("click", event => {
      event.preventDefault();
      state.open.add(r);
      set(true);
      remember();
    });
    document.dispatchEvent(new CustomEvent("whence:row", { detail: { tr, r, title: data.items[row[0]].title } }));
    return [tr, () => set(state.open.has(r))];
  };

  const draw = () => {
    const size = Number(at("size").value), pages = Math.max(1, Math.ceil(found.length / size));
    state.page = Math.min(state.page, pages - 1);
    document.dispatchEvent(new CustomEvent("whence:draw"));
    const shown = found.slice(state.page * size, (state.page + 1) * size).map(line);
    body.replaceChildren(...shown.map(([tr]) => tr));
    for (const [, restore] of shown) restore();
    const all = thousands(data.rows.length);
    at("count").textContent = found.length === data.rows.length ? `${all} rows` : found.length
      ? `${thousands(found.length)} of ${all} rows match` : `None of ${all} rows matches. Change the search or the filters.`;
    at("where").textContent = `Page ${thousands(state.page + 1)} of ${thousands(pages)}`;
    at("first").disabled = at("previous").disabled = state.page === 0;
    at("last").disabled = at("next").disabled = state.page >= pages - 1;
    for (const th of document.querySelectorAll("table.rows thead th")) {
      const sorted = Number(th.dataset.column) === state.sort;
      th.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    }
    at("sort").value = String(state.sort);
    remember();
  };

  // The address of the page says what is shown, so that a link leads to the same rows.
  const remember = () => {
    const parts = new URLSearchParams();
    if (state.search) parts.set("q", state.search);
    if (state.sort >= 0 || state.down) parts.set("sort", `${state.down ? "-" : ""}${state.sort + 1}`);
    if (state.mistakes) parts.set("mistakes", "1");
    for (const [c, value] of state.filters) parts.set(`of ${data.columns[c].name}`, value);
    if (state.page) parts.set("page", state.page + 1);
    if (state.open.size) parts.set("open", [...state.open].map(r => r + 1).join(","));
    const hash = parts.toString();
    if (!hash && !location.hash.includes("=")) return;
    try { history.replaceState(history.state, "", hash ? `#${hash}` : location.pathname + location.search); } catch { /* not allowed here */ }
  };
  const recall = () => {
    if (!location.hash.includes("=")) return;
    const parts = new URLSearchParams(location.hash.slice(1)), sort = parts.get("sort") || "0";
    const order = Math.abs(parseInt(sort, 10)) || 0;
    state.search = at("search").value = parts.get("q") || "";
    state.sort = Math.min(order, data.columns.length) - 1;
    state.down = sort.startsWith("-");
    state.mistakes = parts.has("mistakes") && Boolean(data.differ);
    if (data.differ) at("differ").checked = state.mistakes;
    state.filters.clear();
    data.columns.forEach((column, c) => {
      const value = parts.get(`of ${column.name}`), select = selects.get(c);
      if (select) select.value = String(value === null ? "" : values.get(c).indexOf(value));
      if (value !== null && select) state.filters.set(c, value);
    });
    state.open = new Set((parts.get("open") || "").split(",").map(r => parseInt(r, 10) - 1).filter(r => data.rows[r]));
    const page = parseInt(parts.get("page") || "1", 10) - 1, first = [...state.open][0];
    find(true);
    const size = Number(at("size").value), there = found.indexOf(first);
    state.page = parts.has("page") || there < 0 ? Math.max(0, page) : Math.floor(there / size);
    draw();
    at("rows").scrollIntoView();
    body.querySelector("tr.more")?.previousElementSibling.scrollIntoView({ block: "start" });
  };

  const sortBy = c => {
    const text = c < 0 || ["item", "text"].includes(data.columns[c].kind);
    state.down = state.sort === c ? !state.down : !text; // numbers start with the largest
    state.sort = c;
    find();
  };

  const head = make("tr", {});
  head.setAttribute("role", "row");
  [["#", -1], ...data.columns.map((column, c) => [column.name, c])].forEach(([name, c]) => {
    const button = make("button", { type: "button", textContent: name });
    if (c < 0) button.setAttribute("aria-label", "Original order");
    button.addEventListener("click", () => sortBy(c));
    const th = make("th", { scope: "col", className: c < 0 ? "rank" : `of-${data.columns[c].kind}` }, button);
    th.setAttribute("role", "columnheader");
    th.dataset.column = c;
    head.append(th);
    at("sort").append(make("option", { value: String(c), textContent: c < 0 ? "original order" : name }));
  });
  document.dispatchEvent(new CustomEvent("whence:head", { detail: head }));
  document.querySelector("table.rows thead").append(head);
  at("sort").addEventListener("change", event => { state.sort = NaN; sortBy(Number(event.target.value)); });
  at("turn").addEventListener("click", () => { state.down = !state.down; find(); });

  const selects = new Map(), values = new Map();
  data.columns.forEach((column, c) => {
    if (!column.filter) return;
    const choices = [...new Set(data.rows.map(row => row[c]).filter(value => value !== null))].sort(collator.compare);
    if (choices.length < 2 || choices.length > 1000) return;
    const select = make("select", {}, make("option", { value: "", textContent: "all" }),
      ...choices.map((value, v) => make("option", { value: String(v), textContent: value.slice(0, 60) })));
    select.addEventListener("change", () => {
      if (select.value === "") state.filters.delete(c); else state.filters.set(c, choices[Number(select.value)]);
      find();
    });
    selects.set(c, select);
    values.set(c, choices);
    at("filters").append(make("label", {}, `${column.name} `, select));
  });
  if (data.differ) {
    const check = make("input", { type: "checkbox", id: "differ" });
    check.addEventListener("change", () => { state.mistakes = check.checked; find(); });
    at("filters").append(make("label", { className: "check" }, check, ` ${data.differ.words}`));
  }
  let waiting = 0;
  at("search").addEventListener("input", event => {
    state.search = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(find, 80);
  });
  if (matchMedia("(max-width: 44rem)").matches) at("size").value = "10"; // as long as a few screens
  at("size").addEventListener("change", () => { state.page = 0; draw(); });
  const go = step => () => { state.page = step(state.page); draw(); };
  at("first").addEventListener("click", go(() => 0));
  at("previous").addEventListener("click", go(page => page - 1));
  at("next").addEventListener("click", go(page => page + 1));
  at("last").addEventListener("click", go(() => Infinity));
  const textOf = (row, c) => {
    const cell = row[c];
    switch (data.columns[c].kind) {
      case "item": return data.items[cell].title;
      case "effects": return cell.map(([example, , text]) => `${data.items[example].title}${text ? ` (${text})` : ""}`).join("; ");
      case "number": return Array.isArray(cell) ? cell[1] : cell === null ? "" : number(cell);
      default: return cell ?? "";
    }
  };
  whence.share(() => [
    [...data.columns.map(column => column.name), ...data.names, "text"],
    ...found.map(r => {
      const item = data.items[data.rows[r][0]];
      return [...data.columns.map((column, c) => textOf(data.rows[r], c)), ...(item.cells || data.names.map(() => "")), item.text ?? ""];
    }),
  ]);
  if (data.rows.length === 1) { // nothing to search, sort or turn over: it is open
    at("table").classList.add("single");
    state.open.add(0);
  }
  at("table").hidden = false;
  addEventListener("hashchange", recall);
  if (location.hash.includes("=")) recall(); else find();
})();
