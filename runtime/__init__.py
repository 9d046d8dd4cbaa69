"""The part that runs on the device: images in, defect scores out.

It needs numpy, OpenCV, Pillow and a backend for the ViT.
"""
