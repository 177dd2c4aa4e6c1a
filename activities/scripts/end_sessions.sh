# End the sessions in the running database that a killed attempt of this recovery left there.
end_sessions() { # what a killed attempt left running in the server must have ended before anybody asks how
    tries=0
    while left=$(live "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = '$mark'" \
        2>&1) && [ "$left" != 0 ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 5 ] || fail Transient "a session of this recovery does not end in the running database"
    done
    [ "$left" = 0 ] || fail Transient "the running database does not answer: $(printf '%s' "$left" | tail -n 1)"
}
