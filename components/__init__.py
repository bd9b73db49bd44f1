"""The stages of the pipeline, each with `run(inputs, outputs, config)` and a command line."""
