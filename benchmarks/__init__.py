"""Data, training and measurements that run on the installed package."""
