"""From raw datasets to batches."""
