"use strict";
// Rows of cells as a CSV file: `csv.text(cell)` is one cell, `csv.file(rows)` the whole.
const csv = (() => {
  const quoted = value => /[",\n\r]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value;
  // A spreadsheet runs a text that starts so; numbers stay numbers.
  const inert = value => /^[=+\-@\t\r]/.test(value) && !/^[+-]?[\d.,]+(e[+-]?\d+)?\s?%?$/i.test(value) ? `'${value}` : value;
  const text = cell => inert(String(cell ?? ""));
  const file = rows => "\ufeff" + rows.map(row => row.map(cell => quoted(text(cell))).join(",")).join("\r\n") + "\r\n";
  return { text, file };
})();
