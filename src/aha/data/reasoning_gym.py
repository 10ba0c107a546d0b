"""Which of reasoning-gym's puzzles (extra `gym`) can be had, and whose judges are not to be trusted.

They are made in a worker and judged in a sandbox, by `aha.data.gym_worker`, because some judges run what they judge.

Measured on 0.1.25: nine datasets execute the text of an answer; those are refused. Six pay for wrong answers; there the
answer is compared with the gold one instead. A judge that raises an error has read something that is no answer. Five
(boxnet, graph_color, propositional_logic, rubiks_cube, rush_hour) have many right answers and name no gold one.
"""

from __future__ import annotations

REFUSED = frozenset(
    {
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Their judges execute an answer, as Python or through sympy's parser."""
COMPARED = frozenset({"acre", "coin_flip", "complex_arithmetic", "game_of_life_halting", "syllogism", "time_intervals"})
"""Their judges pay for nonsense: these answers must be the gold one."""
GRIDS = frozenset({"arc_agi", "rearc"})
"""Their judges compare grids as tuples of tuples, which JSON has made lists."""
MOST_CHARACTERS = 4000


def same_text(answer: str, gold: str) -> bool:
    """Equality up to case, space and a full stop."""
    return _plain(answer) == _plain(gold)


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(".").casefold()
