"""The adapter to S3: objects, folders, training states."""
