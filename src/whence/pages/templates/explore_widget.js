// The explorer below a cell of a notebook: it asks the kernel by messages of its widget, each answer
// known by the number of its question. A shadow root keeps its styles and names from the notebook's.
const scheme = element => {
  // Light or dark as what is behind it, whichever application shows the notebook.
  for (let behind = element; behind; behind = behind.parentElement) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(behind).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (red !== undefined && alpha > 0) return 0.3 * red + 0.6 * green + 0.1 * blue < 128 ? "dark" : "light";
  }
  return "light";
};
const render = ({ model, el }) => {
  const host = document.createElement("div"), waiting = new Map();
  host.setAttribute("data-lm-suppress-shortcuts", "true"); // keys are the explorer's: "dd" deletes no cell
  const root = host.attachShadow({ mode: "open" });
  root.innerHTML = page;
  root.prepend(Object.assign(document.createElement("style"), { textContent: style }));
  el.append(host);

  const recolor = () => { host.style.colorScheme = scheme(el); };
  const themes = new MutationObserver(recolor);
  for (const each of [document.documentElement, document.body]) themes.observe(each, { attributes: true });
  requestAnimationFrame(recolor);

  const answered = ({ id, content, error }) => {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) asked?.resolve(content); else asked?.reject(new Error(error));
  };
  model.on("msg:custom", answered);
  const ask = (name, body = {}) => new Promise((resolve, reject) => {
    const id = crypto.getRandomValues(new Uint32Array(2)).join("-"); // views of one widget share its messages
    waiting.set(id, { resolve, reject });
    model.send({ id, name, body });
  });
  explorer(root, { ask, first: NaN, chose: () => {} });
  return () => {
    model.off("msg:custom", answered);
    themes.disconnect();
  };
};
export default { render };
