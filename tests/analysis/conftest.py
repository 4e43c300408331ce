from hypothesis import settings

# The first example of a module pays for the import of SciPy, and the machine may be busy: time is no property here.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
