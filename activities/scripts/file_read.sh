# Print the beginning of the file PATH_OF, at most MOST bytes.
head -c "$MOST" -- "$PATH_OF"
