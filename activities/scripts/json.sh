# Tell JSON as rows "PATH<TAB>VALUE", for hosts that have no program for it.
# A path is keys and places in lists joined by "/"; there is a row for each string, number, truth value and null (which
# is ""). Escapes within strings stay as they are, but for \" \\ and \/. Exit code 1 where it is not JSON, or not whole.
json_rows() {
    awk '
    function push(list) { depth++; lists[depth] = list; at[depth] = list ? 0 : "" }
    function next_piece() { piece++; return "{" pieces[piece] (piece < count ? "}," : "") }
    function told(value,    path, i) {
        path = at[1]
        for (i = 2; i <= depth; i++) path = path "/" at[i]
        print path "\t" value
    }
    function text(token) {
        token = substr(token, 2, length(token) - 2)
        if (index(token, "\\")) {
            gsub(/\\\\/, "\001", token); gsub(/\\\//, "/", token); gsub(/\\"/, "\"", token); gsub("\001", "\\", token)
        }
        return token
    }
    {
        # All that is left of a line is copied by each token: a long one is read in pieces.
        count = split($0, pieces, "},{")
        rest = pieces[piece = 1] (count > 1 ? "}," : "")
        while (rest != "" || piece < count) {
            if (rest == "") rest = next_piece()
            if (match(rest, /^[ \t\r]+/)) { rest = substr(rest, RLENGTH + 1); continue }
            one = substr(rest, 1, 1)
            if (one == "{" || one == "[") { push(one == "["); name = one == "{"; rest = substr(rest, 2) }
            else if (one == "}" || one == "]") { depth--; name = 0; rest = substr(rest, 2) }
            else if (one == ",") { if (lists[depth]) at[depth]++; else name = 1; rest = substr(rest, 2) }
            else if (one == ":") { name = 0; rest = substr(rest, 2) }
            else if (match(rest, /^"([^"\\]|\\.)*"/)) {
                token = text(substr(rest, 1, RLENGTH)); rest = substr(rest, RLENGTH + 1)
                if (name) at[depth] = token; else told(token)
            }
            else if (one == "\"" && piece < count) rest = rest next_piece() # the piece ended within a string
            else if (match(rest, /^[-+.0-9A-Za-z]+/)) {
                token = substr(rest, 1, RLENGTH); rest = substr(rest, RLENGTH + 1)
                told(token == "null" ? "" : token)
            }
            else { bad = 1; exit 1 }
        }
    }
    END { if (bad || depth) exit 1 }'
}
