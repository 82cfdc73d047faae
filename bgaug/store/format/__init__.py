"""The parts of a shard and of the index: names, documents, columns, records, content."""
