-- Studies, their trials, and what the trials measured.
--
-- Counts are raw (correct of total), percentages are derived where they are
-- shown. A time is in milliseconds since 1970-01-01 UTC.

-- +goose Up

CREATE TABLE study (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    title       TEXT    NOT NULL,                                -- one line for people, '' if none
    settings    TEXT    NOT NULL CHECK (json_valid(settings)),   -- canonical JSON of the normalised study
    fingerprint TEXT    NOT NULL CHECK (length(fingerprint) = 64), -- SHA-256 of settings, hexadecimal
    created     INTEGER NOT NULL CHECK (created > 0),            -- time (ms)
    updated     INTEGER NOT NULL CHECK (updated >= created)      -- time (ms) of the last change to the study or its trials
) STRICT;

-- One training: the network of one pair from one seed. Everything else that
-- defines it is in the settings of its study.
CREATE TABLE trial (
    id            INTEGER PRIMARY KEY,                           -- rises in the order of the plan
    study         INTEGER NOT NULL REFERENCES study (id),
    L             INTEGER NOT NULL CHECK (L >= 1),               -- primary partitions
    M             INTEGER NOT NULL CHECK (M >= 1),               -- channels of each, secondary partitions
    seed          INTEGER NOT NULL CHECK (seed >= 0),
    status        TEXT    NOT NULL CHECK (status IN ('pending', 'running', 'done', 'diverged', 'failed')),
    epochs        INTEGER NOT NULL CHECK (epochs >= 1),          -- epochs of the whole training
    multiply_adds INTEGER NOT NULL CHECK (multiply_adds >= 0),   -- multiply-adds, forward pass of one picture
    UNIQUE (study, L, M, seed)
) STRICT;

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

-- The state of a training after its newest epoch.
CREATE TABLE checkpoint (
    trial  INTEGER PRIMARY KEY REFERENCES trial (id),
    epoch  INTEGER NOT NULL,                                     -- epochs finished
    state  BLOB    NOT NULL,                                     -- the trainer's encoding
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),         -- of state
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, number)
) STRICT;

PRAGMA user_version = 1;
