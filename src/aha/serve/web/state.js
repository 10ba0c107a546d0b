// What the chat page knows, and what of it survives a reload of the tab.

import { stored } from "./dom.js";

const KEPT = "aha.chat";

export const state = {
  turns: [], // a question, the problem that it may be, and one answer for each model
  models: [],
  facts: { families: [], wait: {}, reflection: {} },
  effort: {}, // what thinking costs and brings, by model, where its run has measured it
  problem: null, // drawn, and not yet asked
  language: stored("aha.language", "en"),
};

export const card = (name) => state.models.find((model) => model.id === name);

export function keep() {
  try {
    sessionStorage.removeItem(KEPT); // what is too long to be kept does not leave an older conversation behind
    sessionStorage.setItem(KEPT, JSON.stringify(state.turns));
  } catch {
    // blocked, or too long
  }
}

export function restore() {
  try {
    state.turns = JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
  } catch {
    state.turns = [];
  }
  for (const answer of state.turns.flatMap((turn) => turn.answers)) if (answer.status === "running") answer.status = "stopped";
}
