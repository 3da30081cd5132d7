"""Making one model of several, without training: their weights are averaged, added, or their layers stacked."""
