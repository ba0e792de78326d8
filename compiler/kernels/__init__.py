"""Loop functions built from kernel plans, with no graph in sight."""
