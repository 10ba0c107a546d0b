"""Group Relative Policy Optimization: advantages, loss, rollouts, trainer (R1 Eqs. 1-3)."""
