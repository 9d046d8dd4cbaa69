"""The report: one HTML file that shows the results of a lot, from disk and without network."""
