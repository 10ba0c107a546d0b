// Asking models: requests, streams into samples, votes and verdicts.

import { chat, post } from "./api.js";
import { byId } from "./dom.js";
import { readSettings } from "./settings.js";
import { card, keep, state } from "./state.js";

const running = new Set(); // an AbortController for each answer that is being made

export function stop() {
  for (const control of running) control.abort();
}

function toggleStop() {
  byId("stop").hidden = running.size === 0;
}

const said = (answer) => answer.samples[answer.judgement?.winner ?? 0];

/** The conversation that a column's model has seen, up to a turn. Models for single questions see the last one only. */
function messages(column, number, model) {
  const { system } = readSettings();
  const list = system ? [{ role: "system", content: system }] : [];
  const earlier = card(model)?.style === "zero" ? [] : state.turns.slice(0, number);
  for (const turn of earlier) {
    const answer = turn.answers[column] ?? turn.answers[0];
    if (!answer?.samples.length || answer.status === "failed") continue;
    list.push({ role: "user", content: turn.question }, { role: "assistant", content: said(answer).content });
  }
  return [...list, { role: "user", content: state.turns[number].question }];
}

function request(model, conversation, n) {
  const { temperature, top_p, thinking, budget, max_tokens, seed } = readSettings();
  const body = { model, messages: conversation, n, temperature, top_p, logprobs: true };
  if (max_tokens) body.max_completion_tokens = max_tokens;
  if (seed !== null) body.seed = seed;
  if (card(model)?.style !== "chat_direct" && thinking !== "free") {
    const bounds = { off: { type: "disabled" }, budget: { type: "enabled", budget_tokens: budget }, least: { type: "enabled", min_tokens: budget } };
    body.thinking = bounds[thinking];
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

const newSample = (folded) => ({ folded, thinking: "", content: "", thinkingTokens: 0, contentTokens: 0, thinkingSeconds: 0, finish: null, earlier: [], change: null });

export async function ask(number, column, view) {
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

/**
 * Goes on with the thinking where it ended, with "Wait" in the place of its end (budget forcing); where there was none, opens
 * one. A model that then ends inside its thinking has the end of it forced, and answers. Where no answer comes because the server
 * refuses, or nothing at all before it is stopped, all stays as it was.
 */
export async function thinkLonger(number, column, sample, view) {
  const turn = state.turns[number];
  const answer = turn.answers[column];
  const wait = `\n${state.facts.wait[/\p{Script=Han}/u.test(turn.question) ? "zh" : "en"]}`;
  const begun = sample.thinking && sample.thinking + wait;
  const body = (thinking) => {
    const whole = request(answer.model, messages(column, number, answer.model), 1);
    if (whole.thinking?.type === "disabled") delete whole.thinking;
    whole.messages.push({ role: "assistant", content: "", reasoning_content: thinking, prefix: true });
    return whole;
  };
  const { judgement, status, seconds } = answer;
  const before = { ...sample, earlier: [...sample.earlier] };
  if (sample.content) sample.earlier.push(sample.content);
  Object.assign(sample, { thinking: begun, content: "", contentTokens: 0, finish: null, change: null });
  answer.judgement = null;
  view.rebuild();
  await stream(answer, body(begun), [sample], view.update);
  if (answer.status === "done" && sample.finish === "stop" && !sample.content) {
    sample.finish = null;
    await stream(answer, { ...body(sample.thinking), thinking: { type: "disabled" } }, [sample], view.update);
  }
  const untouched = answer.status === "stopped" && sample.thinking === begun;
  if (!sample.content && (answer.status === "failed" || untouched)) {
    Object.assign(sample, before);
    Object.assign(answer, { judgement, status, seconds });
  } else {
    await judge(turn, answer);
    if (answer.status === "done" && before.content && sample.content) sample.change = await compare(turn, before, sample);
  }
  finish(view);
}

/** What a longer thinking changed: both answers as the verifier reads them, and the tokens between; null where it cannot say. */
async function compare(turn, before, sample) {
  const tokens = sample.thinkingTokens - before.thinkingTokens + sample.contentTokens;
  try {
    const { replies } = await post("/api/judge", { problem: turn.problem, replies: [before.content, sample.content] });
    return { before: replies[0], after: replies[1], changed: replies[0].group !== replies[1].group, tokens };
  } catch {
    return null;
  }
}

async function judge(turn, answer) {
  const ready = answer.samples.some((sample) => sample.content || sample.finish);
  if (answer.status === "failed" || !ready || (!turn.problem && answer.samples.length === 1)) return;
  try {
    answer.judgement = await post("/api/judge", { problem: turn.problem, replies: answer.samples.map((sample) => sample.content) });
  } catch (error) {
    answer.error = `No verdict: ${error.message}`;
  }
}

function finish(view) {
  keep();
  view.rebuild();
}
