-- Billing's database, its role, and a role that may only look. Run once, as the administrator:
--
--   sudo -u postgres psql -v ON_ERROR_STOP=1 -f config/postgresql/setup.sql
--
-- The role is named like the system user of headend-billing.service: over the server's local
-- socket that is all it takes to be let in ("peer" in pg_hba.conf). Over TCP it needs a password,
-- which stands in no file of this folder:
--
--   sudo -u postgres psql -c '\password "headend-billing"'

CREATE ROLE "headend-billing" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE "headend-reader" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;

CREATE DATABASE headend TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
REVOKE ALL ON DATABASE headend FROM PUBLIC;
-- Rows in bulk come in through temporary tables.
GRANT CONNECT, TEMPORARY ON DATABASE headend TO "headend-billing";
GRANT CONNECT ON DATABASE headend TO "headend-reader";

\connect headend

-- The one place it may make anything in: a schema of its own, first on its search path because it
-- has the role's name.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA "headend-billing" AUTHORIZATION "headend-billing";

-- Reports look, and change nothing.
GRANT USAGE ON SCHEMA "headend-billing" TO "headend-reader";
ALTER DEFAULT PRIVILEGES FOR ROLE "headend-billing" IN SCHEMA "headend-billing"
    GRANT SELECT ON TABLES TO "headend-reader";
ALTER ROLE "headend-reader" IN DATABASE headend SET search_path = "headend-billing";
