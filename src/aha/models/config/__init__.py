"""What a configuration file says: sizes of each family, presets, counts and estimates. No torch here."""
