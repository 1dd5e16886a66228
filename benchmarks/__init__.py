"""The project's figures, each from one command. Run a file with --json for its numbers alone."""
