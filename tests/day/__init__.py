"""A day of a cluster in accelerated time: what there is in the evening and was not in the morning."""
