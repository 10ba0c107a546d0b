"""Run folders to tables, figures and one HTML file. Reads files only."""
