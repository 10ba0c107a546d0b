"""Role-play and self-introduction: a greeting in somebody's voice, and the assistant's own name."""

from __future__ import annotations

import random

from aha.tasks.general.family import ScoredFamily
from aha.tasks.general.lexicon import NAMES, Word, is_in, share
from aha.types import Language, Problem

PERSONAS: tuple[tuple[Word, Word], ...] = (
    (Word("a pirate", "海盗"), Word("Arr", "嘿")),
    (Word("a robot", "机器人"), Word("Beep", "哔")),
    (Word("a cat", "猫"), Word("Meow", "喵")),
    (Word("a ghost", "鬼"), Word("Boo", "呜")),
    (Word("a king", "国王"), Word("Ahem", "嗯哼")),
    (Word("a dog", "狗"), Word("Woof", "汪")),
)
"""Who speaks, and the sound by which they are known."""
ACTS: tuple[tuple[Word, Word], ...] = (
    (Word("Greet {}", "向{}问好"), Word("Hello", "你好")),
    (Word("Say goodbye to {}", "向{}告别"), Word("Goodbye", "再见")),
    (Word("Thank {}", "感谢{}"), Word("Thank you", "谢谢")),
)
SELF: dict[Language, tuple[str, ...]] = {
    "en": ("Who are you?", "What is your name?", "Are you a human?", "Introduce yourself.", "Who am I talking to?"),
    "zh": ("你是谁？", "你叫什么？", "你是人吗？", "介绍一下自己。", "我在和谁说话？"),
}
INTRODUCTION: dict[Language, str] = {"en": "I am Aha, an assistant.", "zh": "我是阿哈，一个助手。"}
OWN = (Word("Aha", "阿哈"), Word("assistant", "助手"))


class Persona(ScoredFamily):
    """Level 1: who are you. Level 2: greet (leave, thank) somebody as somebody else."""

    name = "persona"
    kind = Word("a role", "角色")
    levels: tuple[int, ...] = (1, 2)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a part to play."""
        if level == 1:
            index = rng.randrange(len(SELF[language]))
            facts: dict[str, int] = {"self": index}
            return Problem(self.name, self.domain, 1, language, SELF[language][index], INTRODUCTION[language], facts)
        persona, act, name = rng.randrange(len(PERSONAS)), rng.randrange(len(ACTS)), rng.randrange(len(NAMES))
        who, what = PERSONAS[persona][0].within(language), ACTS[act][0].within(language)
        what = what.format(NAMES[name].within(language))
        question = f"You are {who}. {what}." if language == "en" else f"你是{who}。{what}。"
        facts = {"persona": persona, "act": act, "name": name}
        return Problem(self.name, self.domain, 2, language, question, self._line(facts, language), facts)

    @staticmethod
    def _line(facts: dict[str, int], language: Language) -> str:
        sound = PERSONAS[facts["persona"]][1].within(language)
        word, name = ACTS[facts["act"]][1].within(language), NAMES[facts["name"]].within(language)
        return f"{sound}! {word}, {name}!" if language == "en" else f"{sound}！{word}，{name}！"

    def score(self, problem: Problem, response: str) -> float:
        """Share of sound, word and name that are there; 0 for another's sound, a wrong language or a long speech."""
        language, facts = problem.language, problem.facts
        if not is_in(response, language) or len(response.strip()) > 60:
            return 0.0
        if "self" in facts:
            return share([word.within(language) in response for word in OWN])
        sound = PERSONAS[facts["persona"]][1].within(language)
        if any(other.within(language) in response.replace(sound, "") for _, other in PERSONAS):
            return 0.0
        word, name = ACTS[facts["act"]][1].within(language), NAMES[facts["name"]].within(language)
        return share([sound in response, word in response, name in response])

    def respond(self, problem: Problem, rng: random.Random, quality: float = 1.0) -> str:
        """The line; with probability 1 - quality somebody else's, or somebody else's name."""
        language, facts = problem.language, dict(problem.facts)
        if rng.random() < quality:
            return INTRODUCTION[language] if "self" in facts else self._line(facts, language)
        if "self" in facts:
            name = rng.choice(NAMES).within(language)
            return f"I am {name}." if language == "en" else f"我是{name}。"
        key, size = rng.choice((("persona", len(PERSONAS)), ("act", len(ACTS)), ("name", len(NAMES))))
        facts[key] = (facts[key] + 1 + rng.randrange(size - 1)) % size
        return self._line(facts, language)
