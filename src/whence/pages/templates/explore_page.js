"use strict";
(() => {
  // The explorer as a page: it asks the server that sent it, and its address says what is shown.
  const { token } = JSON.parse(document.getElementById("data").textContent);
  const headers = { "X-Whence-Token": token, "Content-Type": "application/json" };
  const ask = async (name, body = {}) => {
    const response = await fetch(`/api/${name}`, { method: "POST", headers, body: JSON.stringify(body) });
    if (response.ok) return response.json();
    const text = await response.text();
    let said = text;
    try { said = JSON.parse(text).error; } catch { /* a sentence as it is */ }
    throw new Error(said);
  };
  const first = location.hash ? Number(location.hash.slice(1)) : NaN;
  explorer(document, { ask, first, chose: query => { location.hash = `#${query}`; } });
})();
