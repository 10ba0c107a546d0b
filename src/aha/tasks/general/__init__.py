"""General tasks of the laptop world: facts, translation, writing, role-play, requests that may be harmful.

What the papers' general data is for (R1 2.3.3: writing, factual questions, self-cognition, translation), small enough
that the world checks every answer exactly. Reasoning needs none of it, which is the point: R1-Zero never trains on it.
"""
