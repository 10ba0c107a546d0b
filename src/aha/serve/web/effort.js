// What thinking costs and brings a model, where the run that it comes from has measured it.

import { byId } from "./dom.js";
import { state } from "./state.js";

const percent = (share) => `${(100 * share).toFixed(0)}%`;

/** Models by the names under which they are served, from the runs' measurements by stage. */
export function readEffort(runs) {
  const named = runs.flatMap((run) =>
    Object.entries(run.effort ?? {}).map(([stage, own]) => [runs.length > 1 ? `${run.name}:${stage}` : stage, own]));
  state.effort = Object.fromEntries(named);
}

/** Below the choice of how long to think: what was measured of it for the chosen model. */
export function showEffort() {
  const points = state.effort[byId("model").value]?.[byId("thinking").value] ?? [];
  const line = ({ setting, tokens, right }) => `${setting === undefined ? "" : `budget ${setting}: `}${Math.round(tokens)} tokens, ${percent(right)} right`;
  byId("effort").hidden = points.length === 0;
  byId("effort").textContent = points.length ? `Measured on held-out problems: ${points.map(line).join("; ")}` : "";
}

/** What “Think longer” did to this model's answers when that was measured; null where it was not. */
export function longerWorth(model) {
  const worth = state.effort[model]?.longer;
  if (worth?.right_to_wrong == null || worth.wrong_to_right == null) return null;
  return `Measured on held-out problems: it spoils ${percent(worth.right_to_wrong)} of the right answers and mends ${percent(worth.wrong_to_right)} of the wrong ones`;
}
