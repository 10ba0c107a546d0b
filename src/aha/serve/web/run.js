// The run page: stages, curves and rollouts of a run folder, asked for again while the run goes on.

import { get, post } from "./api.js";
import { chart, shown } from "./chart.js";
import { byId, h, themeButton } from "./dom.js";

const LIVE_MS = 3000;
const QUIET_MS = 30000;
const PAGE = 50;
const MOST = 200; // of one request
const view = { runs: [], run: "", stage: "", tab: "curves", at: null, groups: [], next: 0 };
let trouble = ""; // what the server last refused to do
let asked = 0; // the number of the latest search: older ones that come late are dropped

const run = () => view.runs.find((known) => known.name === view.run);
const stage = () => run()?.stages.find((known) => known.name === view.stage);

function showState() {
  const stopped = (run()?.stages ?? []).some((known) => known.state === "stopped");
  byId("state").textContent = trouble || run()?.fault || (run()?.live ? "● live" : stopped ? "■ stopped" : "");
}

/** Does what needs the server. What fails is said, and what is shown stays. */
async function attempt(work) {
  try {
    await work();
    trouble = "";
  } catch (error) {
    trouble = error instanceof TypeError ? "the server does not answer" : error.message;
  }
  showState();
}

// ---- the address names what is shown ----

function readAddress() {
  const [name, stageName, tab, at] = location.hash.slice(1).split("/").map(decodeURIComponent);
  view.run = view.runs.some((known) => known.name === name) ? name : (view.runs[0]?.name ?? "");
  const stages = run()?.stages ?? [];
  const telling = stages.filter((known) => known.curves || known.rollouts);
  const usual = telling.findLast((known) => known.state === "running" || known.state === "stopped") ?? telling.findLast((known) => known.kind === "grpo") ?? telling.at(-1);
  view.stage = stages.some((known) => known.name === stageName) ? stageName : (usual?.name ?? "");
  view.tab = tab === "rollouts" ? tab : "curves";
  view.at = at ? Number(at) : null;
}

function writeAddress() {
  const parts = [view.run, view.stage, view.tab, ...(view.at === null ? [] : [view.at])];
  history.replaceState(null, "", `#${parts.map(encodeURIComponent).join("/")}`);
}

// ---- stages ----

function showStages() {
  showState();
  const button = (known) =>
    h("button", { "aria-current": String(known.name === view.stage), disabled: !(known.curves || known.rollouts), onclick: () => choose(known) },
      h("span", { class: `dot ${known.state}`, title: known.state }, { done: "✓", running: "●", stopped: "■", waiting: "○" }[known.state]),
      h("span", {}, known.name),
      h("small", {}, known.step === null ? "" : `step ${known.step}`));
  byId("stages").replaceChildren(...(run()?.stages ?? []).map(button));
  byId("run").value = view.run;
  byId("title").textContent = view.stage || "No stage has begun";
  for (const tab of document.querySelectorAll("[data-tab]")) {
    tab.ariaSelected = String(tab.dataset.tab === view.tab);
    tab.disabled = tab.dataset.tab === "rollouts" && !stage()?.rollouts;
  }
  byId("curves").hidden = view.tab !== "curves";
  byId("rollouts").hidden = view.tab !== "rollouts";
}

function choose(known) {
  Object.assign(view, { stage: known.name, at: null, groups: [], tab: view.tab === "rollouts" && known.rollouts ? "rollouts" : known.curves ? "curves" : "rollouts" });
  byId("filters").reset();
  byId("group").replaceChildren();
  showAll();
}

function showAll() {
  writeAddress();
  showStages();
  document.querySelector('#stages [aria-current="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  return attempt(() => (view.tab === "curves" ? showCurves() : Promise.all([showList(), showGroup()])));
}

// ---- curves ----

async function showCurves() {
  if (!view.stage) return;
  const { run: name, stage: stageName } = view;
  const { panels } = await post("/api/runs/panels", { run: name, stage: stageName });
  if (name !== view.run || stageName !== view.stage) return;
  const figures = (first) => panels.filter((panel) => panel.first === first).map(chart);
  byId("first").replaceChildren(...figures(true));
  byId("rest").replaceChildren(...figures(false));
  byId("empty").hidden = panels.length > 0;
  byId("more").hidden = panels.length === 0;
}

// ---- rollouts ----

function filters() {
  const values = Object.fromEntries([...new FormData(byId("filters"))].filter(([, value]) => value !== ""));
  for (const name of ["level", "first_step", "last_step"]) if (name in values) values[name] = Number(values[name]);
  if ("reflecting" in values) values.reflecting = true;
  return values;
}

function offer(name, label, values) {
  const select = byId("filters").elements[name];
  const chosen = select.value;
  select.replaceChildren(h("option", { value: "" }, label), ...values.map((value) => h("option", { value: String(value) }, name === "level" ? `level ${value}` : value)));
  select.value = values.map(String).includes(chosen) ? chosen : "";
  select.hidden = values.length === 0;
}

const search = (offset, limit) => post("/api/runs/search", { run: view.run, stage: view.stage, ...filters(), offset, limit });

async function showList() {
  const number = ++asked;
  const found = await search(0, Math.min(MOST, Math.max(PAGE, view.groups.length)));
  if (number !== asked) return;
  offer("model", "every model", found.models);
  offer("family", "every family", found.families);
  offer("level", "every level", found.levels);
  Object.assign(view, { groups: found.groups, next: found.groups.length });
  document.querySelector(".steps").hidden = found.groups.every((group) => group.step === null) && found.total > 0;
  byId("list").replaceChildren(...found.groups.map(hit));
  showRest(found);
  if (view.at === null && found.groups.length) open(found.groups[0].at);
}

/** Appends the next groups. What the run has logged meanwhile stands in front: it, and what comes again, is left out. */
async function showMore(button) {
  button.disabled = true;
  const number = asked;
  let [found, added] = [null, []];
  do {
    found = await search(view.next, PAGE);
    if (number !== asked) return;
    view.next += found.groups.length;
    added = found.groups.filter((group) => group.at < view.groups.at(-1).at);
  } while (!added.length && found.groups.length);
  view.groups.push(...added);
  byId("list").append(...added.map(hit));
  showRest(found);
}

function showRest(found) {
  byId("total").textContent = found.total === found.of ? `${found.of} prompts` : `${found.total} of ${found.of} prompts`;
  byId("list").querySelector(".next")?.remove();
  if (found.total > view.next) byId("list").append(h("button", { class: "next", onclick: (event) => attempt(() => showMore(event.target)) }, "More"));
}

function hit(group) {
  const share = h("span");
  share.style.width = `${(100 * group.right) / group.count}%`;
  const where = [group.step === null ? group.model : `step ${group.step}`, `${group.family} ${group.level}`].join(" · ");
  return h("button", { class: "hit", "data-at": group.at, "aria-current": String(group.at === view.at), onclick: () => open(group.at) },
    h("span", { class: "line" }, h("span", {}, where), h("span", {}, `${group.right}/${group.count} right`)),
    h("span", { class: "what" }, group.question),
    h("span", { class: "bar3" }, share));
}

function open(at) {
  view.at = at;
  writeAddress();
  for (const button of document.querySelectorAll(".hit")) button.ariaCurrent = String(Number(button.dataset.at) === at);
  return attempt(showGroup);
}

async function showGroup() {
  if (view.at === null) return;
  const { at } = view;
  const group = await post("/api/runs/group", { run: view.run, stage: view.stage, at });
  if (at !== view.at) return;
  const where = [group.step === null ? null : `step ${group.step}`, group.model, group.style, group.source, group.family, `level ${group.level}`].filter(Boolean).join(" · ");
  const order = group.completions.map((one, number) => ({ ...one, number }));
  if (order.every((one) => one.advantage !== null)) order.sort((a, b) => b.advantage - a.advantage || a.number - b.number);
  byId("group").replaceChildren(
    h("div", { class: "soft" }, where),
    h("p", { class: "problem" }, group.question),
    h("div", { class: "soft" }, group.gold === null ? "" : `a right answer: ${group.gold}`),
    ...order.map(completion));
}

function completion({ number, reward, rewards, right, advantage, tokens, finish_reason: finish, pieces }) {
  const part = (name, value) => h("span", { class: "part" }, `${name} `, h("b", {}, shown(value)));
  return h("article", { class: "completion" },
    h("header", {}, h("span", { class: "soft" }, `#${number + 1}`),
      h("span", { class: `chip ${right ? "right" : "wrong"}` }, right ? "✓ right" : "✗ wrong"),
      h("span", {}, "reward ", h("b", {}, reward === null ? "none" : shown(reward))),
      advantage === null ? null : h("span", {}, "advantage ", h("span", { class: advantage > 0 ? "plus" : advantage < 0 ? "minus" : "" }, `${advantage > 0 ? "+" : ""}${advantage.toFixed(2)}`)),
      Object.entries(rewards).map(([name, value]) => part(name, value)),
      h("span", { class: "part" }, `${tokens} tokens${finish === "length" ? ", cut off" : ""}`)),
    h("pre", {}, pieces.map(([text, kind]) => (kind ? h("mark", { title: `reflection: ${kind}` }, text) : text))));
}

// ---- the page ----

async function refresh() {
  await attempt(async () => {
    const before = JSON.stringify(run());
    view.runs = (await get("/api/runs")).data;
    if (JSON.stringify(run()) !== before) {
      if (!view.stage) begin();
      showStages();
      if (view.tab === "curves") await showCurves();
      else if (byId("list").scrollTop === 0) await showList();
    }
  });
  const quiet = !trouble && !run()?.live;
  setTimeout(refresh, quiet ? QUIET_MS : LIVE_MS);
}

function begin() {
  byId("run").replaceChildren(...view.runs.map(({ name, recipe }) => h("option", { value: name }, recipe && recipe !== name ? `${name} (${recipe})` : name)));
  readAddress();
}

async function start() {
  themeButton(byId("theme"));
  byId("run").addEventListener("change", (event) => {
    location.hash = `#${encodeURIComponent(event.target.value)}`;
  });
  window.addEventListener("hashchange", () => {
    readAddress();
    showAll();
  });
  for (const tab of document.querySelectorAll("[data-tab]")) {
    tab.addEventListener("click", () => {
      view.tab = tab.dataset.tab;
      showAll();
    });
  }
  let typing = 0;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      Object.assign(view, { at: null, groups: [] });
      byId("group").replaceChildren();
      attempt(showList);
    }, 200);
  });
  await attempt(async () => {
    view.runs = (await get("/api/runs")).data;
    begin();
  });
  if (view.runs.length) await showAll();
  setTimeout(refresh, LIVE_MS);
}

start();
