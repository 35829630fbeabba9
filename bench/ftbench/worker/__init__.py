"""The code that imports torch, transformers and datasets. The parent process never imports it."""
