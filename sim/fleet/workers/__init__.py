"""Where the trainings of virtual vehicles run: stacked in one batch, in processes, on Ray."""
