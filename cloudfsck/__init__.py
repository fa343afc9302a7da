"""cloudfsck: fsck for an OpenStack cloud."""

__version__ = "0.1.0"
