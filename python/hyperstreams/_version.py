"""The version, in one place: read by the build, by CMake and by ``hyperstreams.__version__``."""

__version__ = "0.1.0"
