"""GPT-J: the architecture, its presets, and its conversions."""
