"""Rule rewards and the rubric that adds them up. No torch here."""
