"""Published experiments, reproduced on real data with whence's public interface."""
