"""Searching a gallery of pictures with a sentence: the index folder, and the engine that uses it."""
