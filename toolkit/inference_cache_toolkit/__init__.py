"""What a person runs: the one console script and the subcommands behind it. May import all; nothing imports it."""
