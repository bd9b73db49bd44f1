"""The search page: a sentence in, a ranked grid of people out."""
