"""Tools of all rooms: errors, settings, files, memory."""
