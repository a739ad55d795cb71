"""Reference companion to "Learning to Segment Object Candidates" (DeepMask, NIPS 2015)."""

__version__ = "0.1.0"
