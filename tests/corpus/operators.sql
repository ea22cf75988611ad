-- In the database `operators` the operator that DISTINCT, GROUP BY, ORDER BY and joins use by themselves is volatile.
CREATE TABLE t (a int); INSERT INTO t VALUES (1);
CREATE TABLE log (a int);
CREATE TYPE odd AS (a int);
CREATE FUNCTION odd_eq(odd, odd) RETURNS bool VOLATILE LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO log VALUES (1); RETURN ($1).a = ($2).a; END $$;
CREATE OPERATOR = (function = odd_eq, leftarg = odd, rightarg = odd);
CREATE OPERATOR CLASS odd_ops DEFAULT FOR TYPE odd USING hash AS OPERATOR 1 =;
CREATE TABLE odds (a odd); INSERT INTO odds VALUES (ROW(1)::odd), (ROW(1)::odd);
