-- Several processes work on a study at once. Who works on a trial is known by a
-- lease; a failure has a kind; of a training two states are kept, for one of
-- them may be damaged.

-- +goose Up

CREATE TABLE old_attempt AS SELECT * FROM attempt;
CREATE TABLE old_epoch AS SELECT * FROM epoch;
CREATE TABLE old_checkpoint AS SELECT * FROM checkpoint;
DROP TABLE checkpoint;
DROP TABLE epoch;
DROP TABLE attempt;

-- How the checkpoints of a study are kept; the last run of it says so. No part
-- of what the study is.
ALTER TABLE study ADD COLUMN keep_checkpoints INTEGER NOT NULL DEFAULT 1 CHECK (keep_checkpoints IN (0, 1)); -- also those of finished trials
ALTER TABLE study ADD COLUMN keep_best        INTEGER NOT NULL DEFAULT 0 CHECK (keep_best IN (0, 1));        -- also the one of the best validation accuracy
ALTER TABLE study ADD COLUMN checkpoint_quota INTEGER NOT NULL DEFAULT 0 CHECK (checkpoint_quota >= 0);      -- bytes of all checkpoints of the study; 0 is no bound
ALTER TABLE study ADD COLUMN changes          INTEGER NOT NULL DEFAULT 0 CHECK (changes >= 0);               -- counts the changes to its trials

ALTER TABLE trial ADD COLUMN until   INTEGER NOT NULL DEFAULT 0 CHECK (until BETWEEN 0 AND epochs); -- epoch that the newest attempt trains to; 0 before the first
ALTER TABLE trial ADD COLUMN changed INTEGER NOT NULL DEFAULT 0 CHECK (changed >= 0);               -- study.changes at the last change to the trial

CREATE INDEX changed_trial ON trial (study, changed);

-- A process that works on trials. It counts beat up each third of its lease; a
-- process that has seen it stand still for a whole lease, by a clock of its own
-- that nobody sets, may take its trials. No time of day is stored, and none is
-- compared.
CREATE TABLE worker (
    id    INTEGER PRIMARY KEY CHECK (id > 0),                    -- random; the byte of the lock file that the process holds
    host  TEXT    NOT NULL,
    pid   INTEGER NOT NULL,                                      -- process on host
    lease INTEGER NOT NULL CHECK (lease > 0),                    -- ms
    beat  INTEGER NOT NULL CHECK (beat >= 0)
) STRICT;

-- One worker's turn at a trial: when, where, by which program.
CREATE TABLE attempt (
    id         INTEGER PRIMARY KEY,
    trial      INTEGER NOT NULL REFERENCES trial (id),
    worker     INTEGER REFERENCES worker (id),                   -- that has the trial; NULL once closed, or if stored before version 3
    token      BLOB CHECK (length(token) = 16),                  -- random, known to the worker alone; NULL if stored before version 3
    started    INTEGER NOT NULL CHECK (started > 0),             -- time (ms)
    ended      INTEGER CHECK (ended > 0),                        -- time (ms), NULL while open
    -- NULL while open. 'paused': at the epoch that the turn was for. 'lost': its process was killed or stood still.
    outcome    TEXT CHECK (outcome IN ('done', 'diverged', 'failed', 'interrupted', 'lost', 'paused')),
    -- Why it ended before its epoch; NULL if it did not, or if stored before version 3.
    failure    TEXT CHECK (failure IN ('diverged', 'out of memory', 'timeout', 'crashed', 'lost', 'interrupted')),
    message    TEXT    NOT NULL DEFAULT '' CHECK (length(message) <= 4000),
    git_commit TEXT    NOT NULL,                                 -- '' if unknown
    go_version TEXT    NOT NULL,
    cpu        TEXT    NOT NULL,                                 -- model name
    isa        TEXT    NOT NULL,                                 -- instruction set of the kernels
    device     TEXT    NOT NULL,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,                                 -- process on host
    args       TEXT    NOT NULL CHECK (json_type(args) = 'array'), -- command line, JSON strings
    CHECK ((ended IS NULL) = (outcome IS NULL)),
    CHECK (ended IS NULL OR worker IS NULL)
) STRICT;

INSERT INTO attempt SELECT id, trial, NULL, NULL, started, ended, outcome, NULL, message,
    git_commit, go_version, cpu, isa, device, host, pid, args FROM old_attempt;

CREATE INDEX attempt_of_trial ON attempt (trial);
CREATE INDEX attempt_of_worker ON attempt (worker) WHERE worker IS NOT NULL;

-- No trial is ever worked on twice at once.
CREATE UNIQUE INDEX one_open_attempt ON attempt (trial) WHERE ended IS NULL;

-- How often a trial failed in each way since it was planned, or since people
-- asked to try it again.
CREATE TABLE failure (
    trial INTEGER NOT NULL REFERENCES trial (id),
    kind  TEXT    NOT NULL CHECK (kind IN ('diverged', 'out of memory', 'timeout', 'crashed', 'lost', 'interrupted')),
    count INTEGER NOT NULL CHECK (count >= 1),                   -- attempts
    PRIMARY KEY (trial, kind)
) STRICT, WITHOUT ROWID;

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

-- The states of a training after its newest two epochs; a new one takes the
-- place of the older.
CREATE TABLE checkpoint (
    trial  INTEGER NOT NULL REFERENCES trial (id),
    slot   INTEGER NOT NULL CHECK (slot IN (0, 1)),              -- of even and odd epochs
    epoch  INTEGER NOT NULL,                                     -- epochs finished
    state  BLOB    NOT NULL,                                     -- the trainer's encoding
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),         -- of state
    PRIMARY KEY (trial, slot),
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, number),
    CHECK (slot = epoch % 2)
) STRICT;

INSERT INTO checkpoint SELECT trial, epoch % 2, epoch, state, sha256 FROM old_checkpoint;

-- The state after the epoch of the best validation accuracy, where the study
-- keeps it.
CREATE TABLE best_checkpoint (
    trial  INTEGER PRIMARY KEY REFERENCES trial (id),
    epoch  INTEGER NOT NULL,                                     -- epochs finished
    state  BLOB    NOT NULL,                                     -- the trainer's encoding
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),         -- of state
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, number)
) STRICT;

DROP TABLE old_attempt;
DROP TABLE old_epoch;
DROP TABLE old_checkpoint;

PRAGMA user_version = 3;
