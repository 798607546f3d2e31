"""Where one architecture or layout overtakes another, with what was published of it beside what the model predicts."""
