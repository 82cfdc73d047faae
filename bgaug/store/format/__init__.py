"""The parts of a shard and of a store's index: names, documents, columns, records, images."""
