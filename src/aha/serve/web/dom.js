// Elements without markup: text only ever becomes a text node, so nothing that a model writes can become script.

const SPECIAL = { class: (node, value) => node.setAttribute("class", value), hidden: (node, value) => (node.hidden = value) };

/** An element with attributes (`onclick` and the like take functions) and children (nodes, strings, arrays; null and false are nothing). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

export function mathml(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/1998/Math/MathML", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name in SPECIAL) SPECIAL[name](node, value);
    else if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Copies text, also where the page is not served from this machine or over TLS and the clipboard is closed to it. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "offscreen" }, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1200);
}

/** A setting that stays in this browser. */
export function stored(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keeps a setting; where the browser keeps nothing for the page, the setting lasts as long as the page. */
export function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // blocked, or full
  }
}

/** Dark, light, or as the system says; a button goes from one to the next. */
export function themeButton(button) {
  const themes = ["auto", "light", "dark"];
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
    button.title = button.ariaLabel = `Colours: ${theme}`;
  };
  show(stored("aha.theme", "auto"));
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    store("aha.theme", next);
    show(next);
  });
}
