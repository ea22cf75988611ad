-- Optional: tells every pgweir of schema changes that are made past it, which it would else notice after
-- reads.catalog_ttl. Run it as a superuser in each database that pgweir serves:
--
--   psql -d shop -f pgweir_ddl.sql
--
-- It notifies the channel pgweir_ddl at the end of each command that changes functions, views, types, operators or
-- tables. Temporary objects are their session's own and are left out. Remove it by
--   DROP EVENT TRIGGER pgweir_ddl; DROP EVENT TRIGGER pgweir_ddl_drop; DROP FUNCTION pgweir_ddl();

BEGIN;

CREATE OR REPLACE FUNCTION pgweir_ddl() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary) THEN
      NOTIFY pgweir_ddl;
    END IF;
  ELSIF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE schema_name IS DISTINCT FROM 'pg_temp'
                   AND object_type NOT IN ('index', 'trigger', 'sequence')) THEN
    NOTIFY pgweir_ddl;
  END IF;
END $$;

DROP EVENT TRIGGER IF EXISTS pgweir_ddl;
CREATE EVENT TRIGGER pgweir_ddl ON ddl_command_end EXECUTE FUNCTION pgweir_ddl();
DROP EVENT TRIGGER IF EXISTS pgweir_ddl_drop;
CREATE EVENT TRIGGER pgweir_ddl_drop ON sql_drop EXECUTE FUNCTION pgweir_ddl();

COMMIT;
