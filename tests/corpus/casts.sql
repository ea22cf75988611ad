-- In the database `casts` a cast runs a volatile function: whatever type a statement casts to, it may be that one.
CREATE TABLE t (a int); INSERT INTO t VALUES (1);
CREATE TABLE log (a int);
CREATE TYPE c_cast AS (a int);
CREATE FUNCTION to_int(c_cast) RETURNS int VOLATILE LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING a';
CREATE CAST (c_cast AS int) WITH FUNCTION to_int(c_cast);
CREATE DOMAIN d_bad AS int CHECK (to_int(ROW(VALUE)::c_cast) > 0);
CREATE TYPE rg_bad AS RANGE (subtype = d_bad);
