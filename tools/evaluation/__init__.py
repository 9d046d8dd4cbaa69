"""Compare the results of a lot with what is known of its images: ``musc-edge eval``."""
