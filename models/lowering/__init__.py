"""From descriptions to steps: one file for the forms, one for the block, one for each family of mixers and for experts."""
