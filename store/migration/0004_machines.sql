-- Workers on other machines. They do not open this file: a coordinator, the
-- process that does, keeps their leases.

-- +goose Up

ALTER TABLE worker ADD COLUMN guest INTEGER NOT NULL DEFAULT 0 CHECK (guest IN (0, 1)); -- holds no lock; a coordinator counts its beat up
ALTER TABLE worker ADD COLUMN job   TEXT    NOT NULL DEFAULT '';                        -- of the scheduler that started it, 'slurm 12_3', 'slurm 12_3 restart 1'; '' outside one

ALTER TABLE attempt ADD COLUMN job  TEXT    NOT NULL DEFAULT '';                        -- of the worker

-- Claims that come twice are known by their token.
CREATE INDEX attempt_of_token ON attempt (token) WHERE token IS NOT NULL;

-- How a study is run, with the keys of a study file, if a coordinator gives its
-- trials out; NULL if none does. No part of what the study is.
ALTER TABLE study ADD COLUMN given_out TEXT CHECK (json_valid(given_out));

PRAGMA user_version = 4;
