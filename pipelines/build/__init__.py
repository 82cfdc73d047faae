"""Building: from videos to backgrounds, shards and exchanged folders."""
