# Do nothing: what follows is measured without the time that a login takes.
:
