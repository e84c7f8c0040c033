"""Sound for one's own video: the page of `specmaskfoley web`, and the HTTP interface of `specmaskfoley serve`."""
