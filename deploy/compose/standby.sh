#!/usr/bin/env bash
# Copies the primary into an empty data directory, then follows it. PGPASSWORD is replicator's;
# --write-recovery-conf keeps it for the standby.
set -euo pipefail

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A copy that was cut short leaves files behind, and pg_basebackup wants none.
    find "$PGDATA" -mindepth 1 -delete
    chmod 0700 "$PGDATA"
    pg_basebackup --host pg1 --username replicator --pgdata "$PGDATA" \
        --wal-method stream --checkpoint fast --write-recovery-conf
fi
exec postgres
