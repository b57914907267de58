"""Many pictures: on every core, every GPU, every machine, each exactly once."""
