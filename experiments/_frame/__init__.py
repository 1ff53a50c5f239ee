"""What all programs share: the launcher, workdirs, training, timing."""
