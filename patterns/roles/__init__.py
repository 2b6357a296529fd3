"""What each role does, written once: steps that yield where they wait, run by the drivers of both shells."""
