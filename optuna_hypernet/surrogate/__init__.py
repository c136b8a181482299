"""λ → response weights, learnt from trials alone. Never imports torch."""
