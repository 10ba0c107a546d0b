// One model's answer: its thinking as it comes, the answer, the verdict; or all answers of a vote, grouped.

import { copy, h } from "./dom.js";
import { longerWorth } from "./effort.js";
import { markdown, marked, plain } from "./markdown.js";
import { state } from "./state.js";

const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;

/**
 * The view of an answer. `update` follows its text while it is made (once a frame, without touching what the reader
 * selects or folds); `rebuild` shows it anew when more has changed than text.
 */
export function answerView(answer, { again, longer, follow }) {
  const node = h("article", { class: "answer" });
  let views = [];
  let frame = 0;

  const progress = () => {
    const status = node.querySelector(".status");
    if (status) status.textContent = statusOf(answer);
  };

  const update = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      for (const view of views) view.update();
      progress();
      follow();
    });
  };

  const rebuild = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    views = answer.samples.map((sample) => sampleView(sample, answer));
    const body = answer.samples.length > 1 ? voteView(answer, views, longer) : views.map((view) => view.node);
    node.dataset.status = answer.status;
    node.replaceChildren(
      h("header", {}, h("b", {}, answer.model), h("span", { class: "status soft", role: "status" })),
      ...[body].flat(),
      ...(answer.error ? [h("p", { class: "error", role: "alert" }, answer.error)] : []),
      tools(answer, longer, again),
    );
    for (const view of views) view.update();
    progress();
  };

  rebuild();
  return { node, update, rebuild };
}

function statusOf(answer) {
  const tokens = answer.samples.reduce((sum, sample) => sum + sample.thinkingTokens + sample.contentTokens, 0);
  const ended = answer.samples.filter((sample) => sample.finish).length;
  const parts = [];
  if (answer.samples.length > 1 && answer.status === "running") parts.push(`${ended} of ${answer.samples.length} answers`);
  if (tokens) parts.push(`${count(tokens, "token")} in ${seconds(answer.seconds ?? 0)}`);
  if (answer.status === "stopped") parts.push("stopped");
  if (answer.status === "done" && answer.samples.some((sample) => sample.finish === "length")) parts.push("cut off at the limit");
  return parts.join(" · ");
}

function tools(answer, longer, again) {
  const sample = answer.samples[answer.judgement?.winner ?? 0];
  const idle = answer.status !== "running";
  return h("div", { class: "tools shown", hidden: !idle },
    longer && said(sample) && answer.samples.length === 1 && longerButton(sample, longer, answer.model),
    h("button", { onclick: again }, "Again"),
    sample?.content && h("button", { onclick: (event) => copy(sample.content, event.currentTarget) }, "Copy"));
}

const said = (sample) => sample && (sample.thinking || sample.content);

const longerButton = (sample, longer, model) => {
  const about = sample.thinking ? "Go on with the thinking: “Wait”" : "Think, then answer anew";
  return h("button", { class: "longer", title: [about, longerWorth(model)].filter(Boolean).join(". "), onclick: () => longer(sample) }, "Think longer");
};

/** What thinking longer has changed, and for how many tokens. */
function changeView({ before, after, changed, tokens }) {
  const shown = ({ answer, score }) => `${answer ?? "no answer"}${score === null ? "" : score === 1 ? " ✓" : " ✗"}`;
  const what = changed ? `changed the answer: ${shown(before)} → ${shown(after)}` : `kept the answer: ${shown(after)}`;
  return h("p", { class: changed ? "change changed" : "change soft" }, `Thinking longer ${what} · ${count(tokens, "token")} more`);
}

/** Thinking and answer of one sample. */
function sampleView(sample, answer) {
  const label = h("span", {});
  const thought = h("div", { class: "thought" });
  const think = h("details", { class: "think", open: sample.folded !== true, ontoggle: () => (sample.folded = !think.open) },
    h("summary", {}, label), thought);
  const content = h("div", { class: "content" });
  const earlier = sample.earlier.map((text) => h("p", { class: "earlier soft" }, "Before: ", h("s", {}, text.length > 160 ? `${text.slice(0, 160)}…` : text)));
  const verdict = h("div", { class: "verdict" });
  const change = sample.change && changeView(sample.change);
  const node = h("div", { class: "sample" }, think, earlier, content, change, verdict);
  const seen = { thinking: null, content: null };

  const update = () => {
    const working = answer.status === "running" && !sample.finish;
    const thinking = working && !sample.content;
    think.hidden = !sample.thinking && !sample.thinkingTokens;
    think.classList.toggle("working", thinking);
    label.textContent = `${thinking ? "Thinking" : "Thought"}: ${count(sample.thinkingTokens, "token")}, ${seconds(sample.thinkingSeconds)}`;
    if (seen.thinking !== sample.thinking) {
      thought.replaceChildren(...marked(sample.thinking, state.facts.reflection));
      seen.thinking = sample.thinking;
    }
    if (seen.content !== sample.content) {
      content.replaceChildren(...markdown(sample.content));
      seen.content = sample.content;
    }
    content.classList.toggle("waiting", working && !sample.thinking && !sample.content);
    content.classList.toggle("missing", sample.finish === "stop" && !sample.content);
    if (answer.samples.length === 1) verdict.replaceChildren(...verdictOf(answer.judgement));
  };
  return { node, update };
}

/** What the verifier says about the answer, or about the one that won the vote. */
function verdictOf(judgement) {
  const judged = judgement?.replies[judgement.winner];
  if (!judged || judged.score === null) return [];
  const right = judged.score === 1;
  const partly = !right && judged.score > 0;
  const text = right ? "✓ right" : partly ? `${Math.round(100 * judged.score)}% of what was asked` : judged.answer === null ? "✗ no answer" : "✗ wrong";
  const gold = right ? null : h("span", { class: "soft" }, " a right answer: ", h("b", {}, judgement.gold));
  return [h("span", { class: right ? "chip right" : partly ? "chip" : "chip wrong" }, text), ...(gold ? [gold] : [])];
}

/** All samples of a vote: by the answer that they name, the most frequent first. */
function voteView(answer, views, longer) {
  const { judgement, samples } = answer;
  if (!judgement) return h("div", { class: "samples" }, views.map((view) => view.node));
  const groups = [...judgement.groups.map((group, number) => ({ ...group, number })), { answer: "no answer", number: null }];
  const verdict = h("div", { class: "verdict" }, verdictOf(judgement));
  return h("div", { class: "vote" }, groups.map((group) => {
    const members = samples.map((_, index) => index).filter((index) => judgement.replies[index].group === group.number);
    if (!members.length) return null;
    const score = judgement.replies[members[0]].score;
    const mark = score === null ? "" : score === 1 ? " ✓" : " ✗";
    const share = h("span", { class: "share" });
    share.style.width = `${(100 * members.length) / samples.length}%`;
    return h("details", { class: `group ${score === 1 ? "right" : score === null ? "" : "wrong"}`, open: group.number === 0 },
      h("summary", {}, h("span", { class: "name" }, plain(group.answer), mark), h("span", { class: "meter" }, share),
        h("span", { class: "soft" }, `${members.length} of ${samples.length}`)),
      members.map((index) => [views[index].node, longer && said(samples[index]) && longerButton(samples[index], longer, answer.model)]));
  }), verdict);
}
