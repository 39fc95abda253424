-- A trial is of a network, of which the pair (L, M) is one kind: its name takes
-- the pair's place in what must be unique. SQLite changes no constraint of a
-- table in place, and drops no table that others refer to; so they are all made
-- anew, in this one transaction.

-- +goose Up

CREATE TABLE old_trial AS SELECT * FROM trial;
CREATE TABLE old_attempt AS SELECT * FROM attempt;
CREATE TABLE old_epoch AS SELECT * FROM epoch;
CREATE TABLE old_checkpoint AS SELECT * FROM checkpoint;
DROP TABLE checkpoint;
DROP TABLE epoch;
DROP TABLE attempt;
DROP TABLE trial;

-- One training: one network from one seed. Everything else that defines it is in
-- the settings of its study.
CREATE TABLE trial (
    id            INTEGER PRIMARY KEY,                           -- rises in the order of the plan
    study         INTEGER NOT NULL REFERENCES study (id),
    system        TEXT    NOT NULL CHECK (length(system) BETWEEN 1 AND 200), -- name of the network, 'IGC-L40M2'
    L             INTEGER CHECK (L >= 1),                        -- primary partitions of the first stage; NULL if it has none
    M             INTEGER CHECK (M >= 1),                        -- channels of each, secondary partitions
    seed          INTEGER NOT NULL CHECK (seed >= 0),
    status        TEXT    NOT NULL CHECK (status IN ('pending', 'running', 'done', 'diverged', 'failed')),
    epochs        INTEGER NOT NULL CHECK (epochs >= 1),          -- epochs of the whole training
    multiply_adds INTEGER NOT NULL CHECK (multiply_adds >= 0),   -- multiply-adds, forward pass of one picture
    params        INTEGER CHECK (params >= 1),                   -- parameters of the network; NULL if stored by version 1
    UNIQUE (study, system, seed)
) STRICT;

INSERT INTO trial SELECT id, study, 'IGC-L' || L || 'M' || M, L, M, seed, status, epochs, multiply_adds, NULL FROM old_trial;

-- One worker's turn at a trial: when, where, by which program.
CREATE TABLE attempt (
    id         INTEGER PRIMARY KEY,
    trial      INTEGER NOT NULL REFERENCES trial (id),
    started    INTEGER NOT NULL CHECK (started > 0),             -- time (ms)
    ended      INTEGER CHECK (ended > 0),                        -- time (ms), NULL while open
    -- NULL while open. 'lost': its process was killed, found when the study was planned again.
    outcome    TEXT CHECK (outcome IN ('done', 'diverged', 'failed', 'interrupted', 'lost')),
    message    TEXT    NOT NULL DEFAULT '' CHECK (length(message) <= 4000),
    git_commit TEXT    NOT NULL,                                 -- '' if unknown
    go_version TEXT    NOT NULL,
    cpu        TEXT    NOT NULL,                                 -- model name
    isa        TEXT    NOT NULL,                                 -- instruction set of the kernels
    device     TEXT    NOT NULL,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,                                 -- process on host
    args       TEXT    NOT NULL CHECK (json_type(args) = 'array'), -- command line, JSON strings
    CHECK ((ended IS NULL) = (outcome IS NULL))
) STRICT;

INSERT INTO attempt SELECT * FROM old_attempt;

CREATE INDEX attempt_of_trial ON attempt (trial);

-- No trial is ever worked on twice at once.
CREATE UNIQUE INDEX one_open_attempt ON attempt (trial) WHERE ended IS NULL;

CREATE TABLE epoch (
    trial              INTEGER NOT NULL REFERENCES trial (id),
    number             INTEGER NOT NULL CHECK (number >= 1),
    attempt            INTEGER NOT NULL REFERENCES attempt (id), -- that measured it
    learning_rate      REAL    NOT NULL CHECK (learning_rate >= 0),
    train_loss         REAL,                                     -- nats per picture, NULL is NaN, which SQLite lacks
    train_correct      INTEGER NOT NULL,                         -- pictures
    train_total        INTEGER NOT NULL,                         -- pictures
    validation_correct INTEGER NOT NULL,                         -- pictures
    validation_total   INTEGER NOT NULL,                         -- pictures, 0 if not evaluated
    test_correct       INTEGER NOT NULL,                         -- pictures
    test_total         INTEGER NOT NULL,                         -- pictures, 0 if not evaluated
    train_seconds      REAL    NOT NULL CHECK (train_seconds >= 0), -- s, training steps and their input
    eval_seconds       REAL    NOT NULL CHECK (eval_seconds >= 0),  -- s
    PRIMARY KEY (trial, number),
    CHECK (train_correct BETWEEN 0 AND train_total),
    CHECK (validation_correct BETWEEN 0 AND validation_total),
    CHECK (test_correct BETWEEN 0 AND test_total)
) STRICT, WITHOUT ROWID;

INSERT INTO epoch SELECT * FROM old_epoch;

-- The state of a training after its newest epoch.
CREATE TABLE checkpoint (
    trial  INTEGER PRIMARY KEY REFERENCES trial (id),
    epoch  INTEGER NOT NULL,                                     -- epochs finished
    state  BLOB    NOT NULL,                                     -- the trainer's encoding
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),         -- of state
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, number)
) STRICT;

INSERT INTO checkpoint SELECT * FROM old_checkpoint;

DROP TABLE old_trial;
DROP TABLE old_attempt;
DROP TABLE old_epoch;
DROP TABLE old_checkpoint;

PRAGMA user_version = 2;
