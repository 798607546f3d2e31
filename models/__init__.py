"""What a transformer computes and how it is cut over chips, whatever the hardware."""
