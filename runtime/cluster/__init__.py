"""Lots beyond one machine, on Ray, whose workers run the ViT and compare images by the code of one machine.

Nothing of scheduling, retrying or moving data is in here; Ray is imported when a cluster is opened.
"""
