"""The documents: their commands, names and links, and the site that is made of them."""
