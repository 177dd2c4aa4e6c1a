# Tell keys as a person reads them. They come one a line, sorted by number: 1001-1512, 1600, and how many more there are.
# MOST characters at the most; of keys that are no whole numbers TEXTS at the most.
ranges() {
    awk -v most="${MOST:-380}" -v texts="${TEXTS:-400}" '
        function add(text, keys) {
            if (full || length(list) + length(text) + 2 > most) { full = 1; more += keys }
            else list = list (list == "" ? "" : ", ") text
        }
        function flush() {
            if (count == 1) add(first, 1)
            else if (count == 2) { add(first, 1); add(last, 1) }
            else if (count) add(first (first < 0 ? " to " : "-") last, count)
            count = 0
        }
        length($0) <= 15 && $0 ~ /^-?[0-9]+$/ {
            if (count && $0 == last + 1) { last = $0; count++; next }
            flush()
            first = last = $0; count = 1; next
        }
        { flush(); if (shown++ < texts) add(substr($0, 1, 60), 1); else more++ }
        END { flush(); print list (more ? (list == "" ? "" : " ") "and " more " more" : "") }'
}
