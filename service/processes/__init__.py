"""One server or several processes: ports, signals, supervision, and an orderly end."""
