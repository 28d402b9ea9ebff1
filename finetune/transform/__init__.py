"""Augmentations of training images, and mixing of batches."""
