# End the job NAME of the folder JOBS, then print what there is of PATHS, as "files_seen" does: one look instead of two.
(
. ./end_job.sh
) || exit
. ./files_seen.sh
