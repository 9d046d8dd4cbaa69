"""What runs on the device: images in, defect scores out.  Needs numpy, OpenCV, Pillow and a ViT backend."""
