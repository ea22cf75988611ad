#!/usr/bin/env bash
# Run once by the postgres image, while the new primary still listens on its socket only.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --username postgres <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator';
CREATE ROLE pgweir LOGIN PASSWORD 'pgweir' IN ROLE pg_monitor;
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE DATABASE app OWNER app;
SQL

# The image lets all users into all databases by password; "all" leaves replication out.
echo 'host replication replicator all scram-sha-256' >> "$PGDATA/pg_hba.conf"
