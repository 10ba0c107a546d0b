// The chat page: turns of one question and one or two models' answers, and all that is pressed and typed.

import { get, post } from "./api.js";
import { answerView } from "./answer.js";
import { ask, stop, thinkLonger } from "./asking.js";
import { byId, copy, h, store, stored, themeButton } from "./dom.js";
import { readEffort, showEffort } from "./effort.js";
import { DEFAULTS, showSettings, watchSettings } from "./settings.js";
import { card, keep, restore, state } from "./state.js";

// ---- turns ----

const views = new Map();

function submit(question, problem, number = state.turns.length) {
  stop();
  const models = [byId("model").value, byId("second").value].filter(Boolean);
  state.turns.length = number;
  state.turns.push({ question, problem, answers: models.map((model) => ({ model, samples: [], status: "running" })) });
  keep();
  show();
  const turn = views.get(number);
  turn.answers.forEach((view, column) => ask(number, column, view));
  turn.node.scrollIntoView({ block: "start", behavior: "smooth" });
}

function turnView(number) {
  const turn = state.turns[number];
  const answers = turn.answers.map((answer, column) => {
    const view = answerView(answer, {
      again: () => ask(number, column, view),
      longer: card(answer.model)?.style === "chat_direct" ? null : (sample) => thinkLonger(number, column, sample, view),
      follow,
    });
    return view;
  });
  const text = h("div", { class: "text" }, turn.question);
  const label = turn.problem && `${turn.problem.family}, level ${turn.problem.level}`;
  const question = h("div", { class: "question" }, label && h("span", { class: "chip" }, label), text,
    h("div", { class: "tools" }, h("button", { onclick: () => edit(number, question) }, "Edit"),
      h("button", { onclick: (event) => copy(turn.question, event.currentTarget) }, "Copy")));
  const node = h("section", { class: "turn" }, question,
    h("div", { class: answers.length > 1 ? "answers two" : "answers" }, answers.map((view) => view.node)));
  return { node, answers, edit: () => edit(number, node.querySelector(".question")) };
}

function edit(number, question) {
  const turn = state.turns[number];
  const area = h("textarea", { rows: "3", "aria-label": "Edit the question" }, turn.question);
  const send = () => area.value.trim() && submit(area.value.trim(), area.value.trim() === turn.question ? turn.problem : null, number);
  const cancel = () => {
    question.replaceWith(turnView(number).node.querySelector(".question"));
    byId("question").focus();
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    }
  });
  const tools = h("div", { class: "tools shown" }, h("button", { class: "primary", onclick: send }, "Ask this instead"), h("button", { onclick: cancel }, "Cancel"));
  question.replaceChildren(area, tools);
  area.focus();
}

function show() {
  views.clear();
  state.turns.forEach((_, number) => views.set(number, turnView(number)));
  byId("turns").replaceChildren(...[...views.values()].map((view) => view.node));
  byId("welcome").hidden = state.turns.length > 0;
}

/** Keeps the end of the page in view while it grows, unless the reader has scrolled away. */
function follow() {
  const main = byId("main");
  if (main.scrollHeight - main.scrollTop - main.clientHeight < 160) main.scrollTop = main.scrollHeight;
}

// ---- the question ----

function setProblem(problem) {
  state.problem = problem;
  byId("tag").hidden = problem === null;
  if (problem) byId("tag").firstElementChild.textContent = `${problem.family}, level ${problem.level}`;
}

function fit(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, 220)}px`;
}

async function drawProblem(family, level) {
  const problem = { family, level, language: state.language, number: Math.floor(Math.random() * 2 ** 31) };
  try {
    const { question } = await post("/api/problem", problem);
    byId("question").value = question;
    setProblem({ ...problem, question });
    fit(byId("question"));
    byId("question").focus();
    note("");
  } catch (error) {
    note(error.message);
  }
}

function showFamilies() {
  const row = ({ name, domain, levels }) =>
    h("div", { class: "family" }, h("span", {}, h("b", {}, name), " ", h("small", { class: "soft" }, domain)),
      h("span", { class: "levels" }, levels.map((level) =>
        h("button", { title: `Draw a problem: ${name}, level ${level}`, onclick: () => drawProblem(name, level) }, String(level)))));
  byId("families").replaceChildren(...state.facts.families.map(row));
}

function send() {
  const question = byId("question").value.trim();
  if (!question || byId("send").disabled) return;
  const problem = state.problem?.question === question ? state.problem : null;
  byId("question").value = "";
  fit(byId("question"));
  setProblem(null);
  submit(question, problem && { family: problem.family, level: problem.level, language: problem.language, number: problem.number });
}

function note(text) {
  byId("note").textContent = text;
}

// ---- models ----

const STYLES = { chat: "thinks", chat_direct: "answers directly", zero: "single questions" };

function showModels() {
  const options = () => state.models.map((model) => h("option", { value: model.id }, `${model.id} · ${STYLES[model.style]}`));
  byId("model").replaceChildren(...options());
  byId("second").replaceChildren(h("option", { value: "" }, "alone"), ...options());
  const known = (name) => (card(name) ? name : "");
  const usual = (state.models.find(({ id }) => /(^|:)r1$/.test(id)) ?? state.models.at(-1))?.id;
  byId("model").value = known(stored("aha.model", "")) || usual || "";
  byId("second").value = known(stored("aha.second", ""));
  document.body.classList.toggle("two", byId("second").value !== "");
  byId("send").disabled = state.models.length === 0;
  if (!state.models.length) note("No model is finished yet. The runs can be watched already.");
}

// ---- the page ----

function keys(event) {
  const typing = /^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape") stop();
  else if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("question").focus();
  } else if (event.key === "O" && event.ctrlKey && event.shiftKey) {
    event.preventDefault();
    clear();
  }
}

function clear() {
  stop();
  state.turns = [];
  keep();
  show();
  byId("question").focus();
}

function listen() {
  themeButton(byId("theme"));
  document.addEventListener("keydown", keys);
  byId("clear").addEventListener("click", clear);
  byId("stop").addEventListener("click", stop);
  byId("problems").addEventListener("click", () => {
    byId("welcome").hidden = state.turns.length > 0 && !byId("welcome").hidden;
    byId("main").scrollTop = 0;
  });
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("question").addEventListener("input", (event) => fit(event.target));
  byId("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && event.target.value === "" && state.turns.length) {
      event.preventDefault();
      views.get(state.turns.length - 1).edit();
    }
  });
  byId("tag").querySelector("button").addEventListener("click", () => setProblem(null));
  for (const id of ["model", "second"]) {
    byId(id).addEventListener("change", (event) => {
      store(`aha.${id}`, event.target.value);
      document.body.classList.toggle("two", byId("second").value !== "");
      showEffort();
    });
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    const press = () => {
      for (const other of document.querySelectorAll("[data-language]")) other.ariaPressed = String(other.dataset.language === state.language);
    };
    button.addEventListener("click", () => {
      state.language = button.dataset.language;
      store("aha.language", state.language);
      press();
    });
    press();
  }
  watchSettings();
  byId("defaults").addEventListener("click", () => showSettings(DEFAULTS));
}

async function start() {
  listen();
  restore();
  try {
    const runs = get("/api/runs").catch(() => null); // a run that cannot be read is the run page's matter
    const [models, facts] = await Promise.all([get("/v1/models"), get("/api/page")]);
    state.models = models.data;
    state.facts = facts;
    const known = (await runs)?.data;
    byId("runs").hidden = known?.length === 0;
    readEffort(known ?? []);
    showModels();
    showEffort();
    show();
  } catch (error) {
    note(error.message);
  }
  showFamilies();
}

start();
