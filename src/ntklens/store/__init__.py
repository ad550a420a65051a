"""Files and folders of results."""
