"""The ends of a measurement: what runs in processes of their own. They know nothing of rows and reports."""
