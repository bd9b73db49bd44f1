"""The adapter to S3: objects, folders, states of trainings."""
