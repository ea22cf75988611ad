-- In the database `indexes` a search by an index runs a volatile function that no statement names.
CREATE TABLE log (a int);
CREATE FUNCTION compares(int, int) RETURNS int VOLATILE LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO log VALUES (1); RETURN btint4cmp($1, $2); END $$;
CREATE OPERATOR CLASS odd_ops FOR TYPE int[] USING gin AS OPERATOR 2 @> (anyarray, anyarray),
    FUNCTION 1 compares(int, int), FUNCTION 2 ginarrayextract(anyarray, internal, internal),
    FUNCTION 3 ginqueryarrayextract(anyarray, internal, smallint, internal, internal, internal, internal),
    FUNCTION 4 ginarrayconsistent(internal, smallint, anyarray, int, internal, internal, internal, internal), STORAGE int;
CREATE TABLE documents (a int[]); INSERT INTO documents VALUES ('{1,2}'), ('{2,3}');
CREATE INDEX ON documents USING gin (a odd_ops);
