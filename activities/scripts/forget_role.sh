# Remove what was kept of the database in DATA as it was a standby.
rm -rf "$COPY"
