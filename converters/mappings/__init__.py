"""Rule tables, one file a family; nothing here but tables and the few lines that assemble them."""
