// The chat: turns of one question and one or two models' answers. What is on screen follows `state`, which survives a reload.

import { chat, get, post } from "./api.js";
import { answerView } from "./answer.js";
import { byId, copy, h, store, stored, themeButton } from "./dom.js";
import { DEFAULTS, readSettings, showSettings, watchSettings } from "./settings.js";

const KEPT = "aha.chat";
const state = { turns: [], models: [], facts: { families: [], wait: {} }, problem: null, language: stored("aha.language", "en") };
const running = new Set(); // an AbortController for each answer that is being made

// ---- requests ----

const card = (name) => state.models.find((model) => model.id === name);
const said = (answer) => answer.samples[answer.judgement?.winner ?? 0];

/** The conversation that a column's model has seen, up to a turn. Models for single questions see the last one only. */
function messages(column, number, model) {
  const { system } = readSettings();
  const list = system ? [{ role: "system", content: system }] : [];
  const earlier = card(model)?.asked === "zero" ? [] : state.turns.slice(0, number);
  for (const turn of earlier) {
    const answer = turn.answers[column] ?? turn.answers[0];
    if (!answer?.samples.length || answer.error) continue;
    list.push({ role: "user", content: turn.question }, { role: "assistant", content: said(answer).content });
  }
  return [...list, { role: "user", content: state.turns[number].question }];
}

function request(model, conversation, n) {
  const { temperature, top_p, thinking, budget, max_tokens, seed } = readSettings();
  const body = { model, messages: conversation, n, temperature, top_p, logprobs: true };
  if (max_tokens) body.max_completion_tokens = max_tokens;
  if (seed !== null) body.seed = seed;
  if (card(model)?.asked !== "chat_direct" && thinking !== "free") {
    body.thinking = thinking === "off" ? { type: "disabled" } : { type: "enabled", budget_tokens: budget };
  }
  return body;
}

/** Streams into samples; tokens are counted one by one, times are those that the reader waits. */
async function stream(answer, body, samples, update) {
  const control = new AbortController();
  running.add(control);
  toggleStop();
  answer.status = "running";
  answer.error = null;
  const started = performance.now();
  const before = answer.seconds ?? 0;
  for (const sample of samples) sample.thinkingBefore = sample.thinkingSeconds ?? 0;
  try {
    for await (const chunk of chat(body, control.signal)) {
      const seconds = (performance.now() - started) / 1000;
      answer.seconds = before + seconds;
      for (const { index, delta, logprobs, finish_reason: finish } of chunk.choices) {
        const sample = samples[index];
        sample.thinking += delta.reasoning_content ?? "";
        sample.content += delta.content ?? "";
        sample.thinkingTokens += logprobs?.reasoning_content.length ?? 0;
        sample.contentTokens += logprobs?.content.length ?? 0;
        if (logprobs?.reasoning_content.length) sample.thinkingSeconds = sample.thinkingBefore + seconds;
        if (finish) sample.finish = finish;
      }
      update();
    }
    answer.status = "done";
  } catch (error) {
    answer.status = control.signal.aborted ? "stopped" : "failed";
    if (!control.signal.aborted) answer.error = error.message;
  } finally {
    running.delete(control);
    toggleStop();
  }
}

const newSample = (folded) => ({ folded, thinking: "", content: "", thinkingTokens: 0, contentTokens: 0, thinkingSeconds: 0, finish: null, earlier: [] });

async function ask(number, column, view) {
  const turn = state.turns[number];
  const answer = turn.answers[column];
  const votes = readSettings().votes;
  answer.samples = Array.from({ length: votes }, () => newSample(votes > 1));
  answer.judgement = null;
  answer.seconds = 0;
  view.rebuild();
  await stream(answer, request(answer.model, messages(column, number, answer.model), votes), answer.samples, view.update);
  await judge(turn, answer);
  finish(view);
}

/** Goes on with the thinking where it ended, with "Wait" in the place of its end (budget forcing). */
async function thinkLonger(number, column, sample, view) {
  const turn = state.turns[number];
  const answer = turn.answers[column];
  const wait = `\n${state.facts.wait[/\p{Script=Han}/u.test(turn.question) ? "zh" : "en"]}`;
  const begun = sample.thinking + wait;
  const body = request(answer.model, messages(column, number, answer.model), 1);
  body.messages.push({ role: "assistant", content: "", reasoning_content: begun, prefix: true });
  if (sample.content) sample.earlier.push(sample.content);
  Object.assign(sample, { thinking: begun, content: "", contentTokens: 0, finish: null });
  answer.judgement = null;
  view.rebuild();
  await stream(answer, body, [sample], view.update);
  await judge(turn, answer);
  finish(view);
}

async function judge(turn, answer) {
  const ready = answer.samples.some((sample) => sample.content || sample.finish);
  if (answer.status === "failed" || !ready || (!turn.problem && answer.samples.length === 1)) return;
  try {
    answer.judgement = await post("/api/judge", { problem: turn.problem, replies: answer.samples.map((sample) => sample.content) });
  } catch (error) {
    answer.error = error.message;
  }
}

function finish(view) {
  keep();
  view.rebuild();
}

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
      longer: card(answer.model)?.asked === "chat_direct" ? null : (sample) => thinkLonger(number, column, sample, view),
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
  return { node, answers, edit: () => edit(number, question) };
}

function edit(number, question) {
  const turn = state.turns[number];
  const area = h("textarea", { rows: "3", "aria-label": "Edit the question" }, turn.question);
  const send = () => area.value.trim() && submit(area.value.trim(), area.value.trim() === turn.question ? turn.problem : null, number);
  const cancel = () => question.replaceWith(turnView(number).node.querySelector(".question"));
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

function stop() {
  for (const control of running) control.abort();
}

function toggleStop() {
  byId("stop").hidden = running.size === 0;
}

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(state.turns));
  } catch {
    sessionStorage.removeItem(KEPT); // too long to be kept
  }
}

function restore() {
  try {
    state.turns = JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
  } catch {
    state.turns = [];
  }
  for (const answer of state.turns.flatMap((turn) => turn.answers)) if (answer.status === "running") answer.status = "stopped";
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

const ASKED = { chat: "thinks", chat_direct: "answers directly", zero: "single questions" };

function showModels() {
  const options = () => state.models.map((model) => h("option", { value: model.id }, `${model.id} · ${ASKED[model.asked]}`));
  byId("model").replaceChildren(...options());
  byId("second").replaceChildren(h("option", { value: "" }, "alone"), ...options());
  const known = (name) => (card(name) ? name : "");
  byId("model").value = known(stored("aha.model", "")) || known("r1") || state.models.at(-1)?.id || "";
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
    const [models, facts, runs] = await Promise.all([get("/v1/models"), get("/api/page"), get("/api/runs")]);
    state.models = models.data;
    state.facts = facts;
    byId("runs").hidden = runs.data.length === 0;
    show();
  } catch (error) {
    note(error.message);
  }
  showModels();
  showFamilies();
}

start();
