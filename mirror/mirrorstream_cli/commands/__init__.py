"""The subcommands: each reads, asks a pure module, and prints."""
