"""What is known of models, folders and data sets before torch is imported; the commands themselves ask here, too."""
