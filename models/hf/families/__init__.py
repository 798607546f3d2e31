"""How the fields of each family of models map to a description, one file a group of families."""
