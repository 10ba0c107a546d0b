// Markdown as models write it, to elements. No raw HTML, no images: an address in a text is never fetched.

import { h } from "./dom.js";
import { math } from "./math.js";

const MOST = 2000; // characters of one formula or emphasis, so that no text takes long to read
const DEEPEST = 6;
const MATH = [
  String.raw`\$\$(?<display>[^$]{1,${MOST}}?)\$\$`,
  String.raw`\\\[(?<bracket>[\s\S]{1,${MOST}}?)\\\]`,
  String.raw`\\\((?<paren>.{1,${MOST}}?)\\\)`,
  String.raw`\$(?<dollar>[^\s$](?:[^$\n]{0,${MOST}}?[^\s$\\])?)\$(?!\d)`,
  String.raw`(?<boxed>\\boxed\{[^{}]{0,${MOST}}\})`,
].join("|");
const INLINE = new RegExp(
  [
    MATH,
    `(?<fence>\`{1,9})(?<code>.{1,${MOST}}?)\\k<fence>(?!\`)`,
    String.raw`!?\[(?<label>[^\[\]]{0,${MOST}})\]\((?<address>[^\s()]{1,${MOST}})\)`,
    String.raw`(?<![\p{L}\p{N}*])\*\*(?<strong>(?=\S).{1,${MOST}}?)\*\*(?![\p{L}\p{N}*])`,
    String.raw`(?<![\p{L}\p{N}*])\*(?<em>(?=[^\s*]).{0,${MOST}}?[^\s*])\*(?![\p{L}\p{N}*])`,
  ].join("|"),
  "gsu",
);
const ONLY_MATH = new RegExp(MATH, "gsu");
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

function formula(match) {
  const { display, bracket, paren, dollar, boxed } = match.groups;
  const source = display ?? bracket ?? paren ?? dollar ?? boxed;
  if (source === undefined) return null;
  try {
    return math(source.trim(), display !== undefined || bracket !== undefined);
  } catch {
    return match[0]; // as the model wrote it
  }
}

function replaced(text, pattern, convert) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    nodes.push(text.slice(at, match.index), convert(match));
    at = match.index + match[0].length;
  }
  return [...nodes, text.slice(at)];
}

function inline(text) {
  return replaced(text, INLINE, (match) => {
    const { code, label, address, strong, em } = match.groups;
    if (code !== undefined) return h("code", {}, code);
    if (address !== undefined) return link(match[0], label, address);
    if (strong !== undefined) return h("strong", {}, inline(strong));
    if (em !== undefined) return h("em", {}, inline(em));
    return formula(match);
  });
}

function link(source, label, address) {
  if (source.startsWith("!") || !/^https?:\/\//i.test(address)) return source;
  return h("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank", title: address }, label || address);
}

const broken = (lines) => lines.flatMap((line, number) => (number ? [h("br"), ...inline(line)] : inline(line)));

/** Text with its formulas drawn and nothing else changed. */
export const plain = (text) => replaced(text, ONLY_MATH, formula);

/** A thinking: plain text, with the words of reflection marked, given by kind; English ones count as whole words. */
export function marked(text, reflection) {
  const kinds = Object.entries(reflection).map(([kind, words]) => {
    const whole = words.map((word) => (/^[a-z]+$/.test(word) ? `(?<![a-z])${word}(?![a-z])` : word));
    return `(?<${kind}>${whole.join("|")})`;
  });
  if (!kinds.length) return plain(text);
  const mark = (match) => {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    return h("mark", { title: `reflection: ${kind}` }, match[0]);
  };
  const pattern = new RegExp(kinds.join("|"), "gi");
  return plain(text).flatMap((node) => (typeof node === "string" ? replaced(node, pattern, mark) : node));
}

/** A reply. */
export function markdown(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  const while_ = (test) => {
    const start = at;
    while (at < lines.length && test(lines[at])) at += 1;
    return lines.slice(start, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(/^\s*(```+|~~~+)\s*([\w+-]*)/);
    const heading = line.match(/^(#{1,6})\s+(.*)$/);
    const open = line.match(/^\s*(\$\$|\\\[)/);
    if (line.trim() === "") at += 1;
    else if (fence) {
      at += 1;
      const body = while_((other) => !other.trim().startsWith(fence[1]));
      at += 1;
      blocks.push(h("pre", {}, h("code", {}, body.join("\n"))));
    } else if (open && !line.trim().slice(2).includes(open[1] === "$$" ? "$$" : "\\]")) {
      const close = open[1] === "$$" ? "$$" : "\\]";
      at += 1;
      const body = [line, ...while_((other) => !other.includes(close))];
      if (at < lines.length) body.push(lines[at++]);
      blocks.push(h("p", {}, inline(body.join("\n"))));
    } else if (heading) {
      at += 1;
      blocks.push(h(`h${Math.min(6, heading[1].length + 2)}`, {}, inline(heading[2])));
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      at += 1;
      blocks.push(h("hr"));
    } else if (depth < DEEPEST && /^\s*>/.test(line)) {
      blocks.push(h("blockquote", {}, markdown(while_((other) => /^\s*>/.test(other)).map((other) => other.replace(/^\s*> ?/, "")).join("\n"), depth + 1)));
    } else if (ITEM.test(line)) blocks.push(list(while_((other) => ITEM.test(other))));
    else if (line.includes("|") && /^\s*\|?(\s*:?-+:?\s*\|)+\s*:?-*:?\s*$/.test(lines[at + 1] ?? "")) {
      blocks.push(grid(while_((other) => other.includes("|"))));
    } else {
      at += 1;
      const starts = (other) => other.trim() === "" || /^(\s*(```|~~~|>)|#{1,6}\s|\s*(\$\$|\\\[))/.test(other) || ITEM.test(other);
      blocks.push(h("p", {}, broken([line, ...while_((other) => !starts(other))])));
    }
  }
  return blocks;
}

function list(lines) {
  const items = lines.map((line) => line.match(ITEM));
  const ordered = /\d/.test(items[0][2]);
  const start = ordered ? { start: String(Number.parseInt(items[0][2], 10)) } : {};
  return h(ordered ? "ol" : "ul", start, items.map((item) => h("li", {}, inline(item[3]))));
}

function grid(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
  const row = (tag) => (line) => h("tr", {}, cells(line).map((cell) => h(tag, {}, cell)));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, row("th")(lines[0])), h("tbody", {}, lines.slice(2).map(row("td")))));
}
