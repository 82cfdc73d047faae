"""Order of work over many videos: finding, spreading over processes, resuming. No algorithm lives here."""
