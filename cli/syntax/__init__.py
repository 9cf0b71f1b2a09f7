"""What can be typed: commands, options and their help, apart from what the commands do."""
