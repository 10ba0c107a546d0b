// LaTeX as models write it to MathML, which browsers draw themselves. What is not known throws: its source is shown.

import { mathml as m } from "./dom.js";

const words = (text) => text.trim().split(/\s+/);
const bare = (entries) => Object.assign(Object.create(null), entries); // knows no name but its own
const table = (text) => bare(Object.fromEntries(words(text).map((pair) => pair.split("="))));

const LETTERS = table(`alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ
  lambda=λ mu=μ nu=ν xi=ξ pi=π rho=ρ sigma=σ tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ Theta=Θ
  Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω infty=∞ ell=ℓ hbar=ℏ emptyset=∅ varnothing=∅ partial=∂ nabla=∇ Re=ℜ Im=ℑ
  aleph=ℵ ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ degree=° angle=∠ triangle=△ square=□ top=⊤ bot=⊥`);
const OPERATORS = table(`cdot=⋅ times=× div=÷ pm=± mp=∓ ast=∗ star=⋆ circ=∘ bullet=∙ oplus=⊕ otimes=⊗ le=≤ leq=≤ ge=≥ geq=≥
  ne=≠ neq=≠ approx=≈ equiv=≡ sim=∼ simeq=≃ cong=≅ propto=∝ ll=≪ gg=≫ mid=∣ nmid=∤ parallel=∥ perp=⊥ in=∈ notin=∉ ni=∋
  subset=⊂ subseteq=⊆ supset=⊃ supseteq=⊇ cup=∪ cap=∩ setminus=∖ land=∧ wedge=∧ lor=∨ vee=∨ lnot=¬ neg=¬ forall=∀ exists=∃
  to=→ rightarrow=→ leftarrow=← leftrightarrow=↔ Rightarrow=⇒ implies=⇒ Leftarrow=⇐ Leftrightarrow=⇔ iff=⇔ mapsto=↦
  longrightarrow=⟶ uparrow=↑ downarrow=↓ therefore=∴ because=∵ colon=: langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈
  rceil=⌉ lbrace={ rbrace=} vert=| Vert=‖ backslash=\\ prime=′ models=⊨ vdash=⊢`);
const BIG = table("sum=∑ prod=∏ coprod=∐ bigcup=⋃ bigcap=⋂ int=∫ iint=∬ oint=∮");
const NAMED = new Set(words(`sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min sup inf gcd
  lcm det dim ker deg arg Pr mod`));
const LIMITS = new Set(words("lim max min sup inf gcd det Pr"));
const ACCENTS = table("hat=^ widehat=^ bar=¯ overline=¯ vec=→ overrightarrow=→ tilde=~ widetilde=~ dot=˙ ddot=¨");
const SPACES = bare({ ",": "0.17em", ":": "0.22em", ";": "0.28em", " ": "0.3em", "!": "0", quad: "1em", qquad: "2em" });
const VARIANTS = bare({ mathbf: "bold", boldsymbol: "bold", mathbb: "double", mathcal: "script", mathit: "", mathsf: "", mathtt: "" });
const TEXTS = new Set(words("text mathrm textrm textbf textit mbox operatorname"));
const IGNORED = new Set(words("displaystyle textstyle limits nolimits big Big bigg Bigg bigl bigr Bigl Bigr"));
const MATRICES = bare({ matrix: "", pmatrix: "()", bmatrix: "[]", Bmatrix: "{}", vmatrix: "||", cases: "{.", aligned: "", "align*": "",
  align: "", array: "", gathered: "", smallmatrix: "" });
const DEEPEST = 60;

const TOKEN = /\\([A-Za-z]+\*?|[^A-Za-z])|(\d+(?:\.\d+)?)|([^\s\\])|(\s+)/gu;

function tokenize(source) {
  return [...source.matchAll(TOKEN)]
    .filter((match) => match[4] === undefined)
    .map((match) => (match[1] !== undefined ? { command: match[1], at: match.index, end: match.index + match[0].length }
      : { number: match[2], letter: match[3], at: match.index, end: match.index + match[0].length }));
}

class Parser {
  constructor(source) {
    this.source = source;
    this.tokens = tokenize(source);
    this.at = 0;
    this.depth = 0;
  }

  get next() { return this.tokens[this.at]; }

  take(letter) {
    if (this.next?.letter !== letter) return false;
    this.at += 1;
    return true;
  }

  need(letter) {
    if (!this.take(letter)) throw new Error(`expected ${letter}`);
  }

  /** Terms up to where `ends` says. */
  row(ends) {
    if (++this.depth > DEEPEST) throw new Error("too deep");
    const terms = [];
    while (this.next && !ends(this.next)) terms.push(this.scripted());
    this.depth -= 1;
    return terms.length === 1 ? terms[0] : m("mrow", {}, terms);
  }

  /** An argument: a group in braces, or one digit, letter or command. */
  group() {
    if (!this.next) throw new Error("something is missing");
    if (this.next.number?.length > 1) {
      const [first, ...rest] = this.next.number;
      this.next.number = rest.join("");
      return m("mn", {}, first);
    }
    if (!this.take("{")) return this.atom();
    const row = this.row((token) => token.letter === "}");
    this.need("}");
    return row;
  }

  scripted() {
    const big = this.next.command in BIG || LIMITS.has(this.next.command);
    const integral = ["int", "iint", "oint"].includes(this.next.command);
    const base = this.next.letter === "^" || this.next.letter === "_" ? m("mrow") : this.atom();
    let below = null;
    let above = null;
    for (;;) {
      if (this.take("_")) below = this.group();
      else if (this.take("^")) above = this.group();
      else if (this.take("'")) above = m("mrow", {}, above, m("mo", {}, "′"));
      else break;
    }
    const stack = big && !integral;
    if (below && above) return m(stack ? "munderover" : "msubsup", {}, base, below, above);
    if (below) return m(stack ? "munder" : "msub", {}, base, below);
    return above ? m(stack ? "mover" : "msup", {}, base, above) : base;
  }

  atom() {
    const token = this.next;
    this.at += 1;
    if (token.number !== undefined) return m("mn", {}, token.number);
    if (token.letter !== undefined) return this.letter(token.letter);
    return this.command(token.command);
  }

  letter(letter) {
    if (letter === "{") {
      this.at -= 1;
      return this.group();
    }
    if ("}&$#%".includes(letter)) throw new Error(`unexpected ${letter}`);
    if (letter === "~") return m("mspace", { width: "0.3em" });
    if (/\p{L}/u.test(letter)) return m("mi", {}, letter);
    return m("mo", "()[]|/".includes(letter) ? { stretchy: "false" } : {}, letter === "-" ? "−" : letter);
  }

  command(name) {
    if (name in LETTERS) return m("mi", {}, LETTERS[name]);
    if (name in OPERATORS) return m("mo", {}, OPERATORS[name]);
    if (name in BIG) return m("mo", {}, BIG[name]);
    if (NAMED.has(name)) return m("mrow", {}, m("mi", {}, name), m("mspace", { width: "0.12em" }));
    if (name in SPACES) return m("mspace", { width: SPACES[name] });
    if (IGNORED.has(name)) return m("mrow");
    if (TEXTS.has(name)) return m("mtext", {}, this.raw());
    if (name in VARIANTS) return m("mrow", { class: `variant ${VARIANTS[name]}` }, this.group());
    if (name in ACCENTS) return m("mover", { accent: "true" }, this.group(), m("mo", {}, ACCENTS[name]));
    if ("{}%$#&_|".includes(name)) return m("mo", { stretchy: "false" }, name === "|" ? "‖" : name);
    if (/^[dtc]?frac$/.test(name)) return m("mfrac", {}, this.group(), this.group());
    if (name === "binom") return this.fenced("(", m("mfrac", { linethickness: "0" }, this.group(), this.group()), ")");
    if (name === "sqrt") return this.root();
    if (name === "boxed" || name === "fbox") return m("mrow", { class: "boxed" }, this.group());
    if (name === "underline") return m("mrow", { class: "underlined" }, this.group());
    if (name === "pmod") return this.fenced("(", m("mrow", {}, m("mi", {}, "mod"), m("mspace", { width: "0.3em" }), this.group()), ")");
    if (name === "bmod") return m("mo", {}, "mod");
    if (name === "left") return this.between();
    if (name === "begin") return this.environment();
    throw new Error(`unknown \\${name}`);
  }

  /** The text of a group as it stands. */
  raw() {
    this.need("{");
    const start = this.tokens[this.at - 1].end;
    let depth = 1;
    while (this.next) {
      const token = this.next;
      this.at += 1;
      depth += token.letter === "{" ? 1 : token.letter === "}" ? -1 : 0;
      if (depth === 0) return this.source.slice(start, token.at).replace(/\\([{}%$#&_ ])/g, "$1").replace(/^ | $/g, "\u00a0");
    }
    throw new Error("a brace is missing");
  }

  root() {
    if (!this.take("[")) return m("msqrt", {}, this.group());
    const index = this.row((token) => token.letter === "]");
    this.need("]");
    return m("mroot", {}, this.group(), index);
  }

  delimiter() {
    const token = this.next;
    if (!token) throw new Error("a delimiter is missing");
    this.at += 1;
    if (token.letter === ".") return "";
    const sign = token.letter ?? OPERATORS[token.command] ?? ("{}|".includes(token.command) ? token.command : undefined);
    if (sign === undefined) throw new Error("not a delimiter");
    return sign;
  }

  between() {
    const open = this.delimiter();
    const row = this.row((token) => token.command === "right");
    if (!this.next) throw new Error("\\right is missing");
    this.at += 1;
    return this.fenced(open, row, this.delimiter());
  }

  fenced(open, row, close) {
    const fence = (sign) => (sign && sign !== "." ? m("mo", { fence: "true", stretchy: "true" }, sign) : null);
    return m("mrow", {}, fence(open), row, fence(close));
  }

  environment() {
    const name = this.raw();
    if (!(name in MATRICES)) throw new Error(`unknown environment ${name}`);
    if (name === "array") this.raw();
    const rows = [[]];
    const ends = (token) => token.letter === "&" || token.command === "\\" || token.command === "end";
    for (;;) {
      rows.at(-1).push(m("mtd", {}, this.row(ends)));
      const token = this.next;
      if (!token) throw new Error("\\end is missing");
      this.at += 1;
      if (token.command === "\\") rows.push([]);
      if (token.command === "end") break;
    }
    if (this.raw() !== name) throw new Error("another \\end was expected");
    const cells = rows.filter((row) => row.some((cell) => cell.textContent !== "")).map((row) => m("mtr", {}, row));
    const [open, close] = MATRICES[name];
    return this.fenced(open, m("mtable", { class: name.startsWith("align") ? "aligned" : name }, cells), close);
  }
}

/** One `<math>` element. Throws where the source holds something that is not known. */
export function math(source, block) {
  const parser = new Parser(source);
  const row = parser.row(() => false);
  return m("math", { display: block ? "block" : "inline" }, m("mrow", {}, row));
}
