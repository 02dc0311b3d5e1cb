"""Every experiment of Koh & Liang (2017), each one short file written against whence."""
