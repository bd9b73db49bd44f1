"""The search page: enter a sentence, get a ranked grid of people."""
