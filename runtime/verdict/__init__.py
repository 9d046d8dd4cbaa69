"""Verdicts on the images of a lot: rules over its scores, marks by a person, regions where it shows."""
