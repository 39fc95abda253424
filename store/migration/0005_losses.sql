-- More is kept of an evaluation: not only how many pictures it got right.

-- +goose Up

ALTER TABLE epoch ADD COLUMN validation_loss REAL; -- nats per picture; NULL if not evaluated, or if stored before version 5
ALTER TABLE epoch ADD COLUMN test_loss       REAL; -- nats per picture; NULL if not evaluated, or if stored before version 5

PRAGMA user_version = 5;
