collect_ignore = ["_build", "_ext", "conf.py", "examples", "api"]
