"""The network: backbone, feature pyramid, head. Read `segmenter.py` first."""
