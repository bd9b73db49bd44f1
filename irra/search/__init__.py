"""Searching a gallery of pictures with a sentence: the index folder and the engine on top of it."""
