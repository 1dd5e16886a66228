"""The command line: thin, and it imports the layers below inside the commands that need them."""
