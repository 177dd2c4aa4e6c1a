# Keep the settings of a standby, so that it can be made what it was, whatever happens to it in between.
. ./running.sh
. ./standing_by.sh
keep_settings
