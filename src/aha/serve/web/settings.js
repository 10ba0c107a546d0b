// How models are asked: sampling, thinking, votes. Kept in this browser.

import { byId, store, stored } from "./dom.js";
import { showEffort } from "./effort.js";

export const DEFAULTS = { temperature: 0.6, top_p: 0.95, thinking: "free", budget: 200, votes: 1, max_tokens: "", seed: "", system: "" };
const NAMES = Object.keys(DEFAULTS);
const KEPT = "aha.settings";

const number = (id) => (byId(id).value === "" || !byId(id).checkValidity() ? null : Number(byId(id).value));

export function readSettings() {
  return {
    temperature: number("temperature"),
    top_p: number("top_p"),
    thinking: byId("thinking").value,
    budget: number("budget") ?? DEFAULTS.budget,
    votes: Number(byId("votes").value),
    max_tokens: number("max_tokens"),
    seed: number("seed"),
    system: byId("system").value.trim(),
  };
}

export function showSettings(settings) {
  for (const name of NAMES) byId(name).value = settings[name];
  changed();
}

function changed() {
  byId("budget-label").hidden = !["budget", "least"].includes(byId("thinking").value);
  for (const id of ["temperature", "top_p"]) byId(id).parentElement.querySelector("output").textContent = byId(id).value;
  showEffort();
  store(KEPT, Object.fromEntries(NAMES.map((name) => [name, byId(name).value])));
}

export function watchSettings() {
  showSettings({ ...DEFAULTS, ...stored(KEPT, {}) });
  byId("settings").addEventListener("input", changed);
  const toggle = (open) => {
    byId("settings").hidden = !open;
    byId("settings-open").ariaExpanded = String(open);
  };
  byId("settings-open").addEventListener("click", () => toggle(byId("settings").hidden));
  byId("settings-close").addEventListener("click", () => toggle(false));
}
