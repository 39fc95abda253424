-- Studies, their trials, and what the trials measured.
--
-- Counts are raw (correct of total); percentages are computed where they are shown. A time is in milliseconds since
-- 1970-01-01 UTC, before the year 10000, which many programs cannot write. PRAGMA user_version holds the version of
-- this file, schemaVersion in store.go: whoever changes a table here counts it up. A database whose tables differ from
-- these is refused, comments apart. What no CHECK can say, findings.go does.

-- One row, by which igcsearch knows the database while it is in use. Only a checkpoint of SQLite moves commits from
-- -wal into the main file.
CREATE TABLE file (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    id      BLOB    NOT NULL CHECK (length(id) = 16),            -- random
    commits INTEGER NOT NULL DEFAULT 0 CHECK (commits >= 0),     -- counts the transactions that write
    closed  INTEGER NOT NULL DEFAULT 0 CHECK (closed >= 0)      -- commits when the last process closed it and all were in the main file
) STRICT;

INSERT INTO file (one, id) VALUES (1, randomblob(16));

CREATE TABLE study (
    id               INTEGER PRIMARY KEY,
    name             TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    title            TEXT    NOT NULL,                                  -- one line for people, '' if none
    settings         TEXT    NOT NULL CHECK (json_valid(settings)),     -- canonical JSON of the normalised study
    fingerprint      TEXT    NOT NULL CHECK (length(fingerprint) = 64), -- SHA-256 of those settings that change the result of a trial, hexadecimal
    created          INTEGER NOT NULL CHECK (created > 0),              -- time (ms)
    updated          INTEGER NOT NULL CHECK (updated BETWEEN created AND 253402300799999), -- time (ms) of the last change to the study or its trials
    changes          INTEGER NOT NULL DEFAULT 0 CHECK (changes >= 0),   -- counts the changes to the study and its trials
    -- How the study is run; not part of its fingerprint. The last run sets these.
    keep_checkpoints INTEGER NOT NULL DEFAULT 1 CHECK (keep_checkpoints IN (0, 1)), -- also those of finished trials
    keep_best        INTEGER NOT NULL DEFAULT 0 CHECK (keep_best IN (0, 1)),        -- also the one of the best validation accuracy
    checkpoint_quota INTEGER NOT NULL DEFAULT 0 CHECK (checkpoint_quota >= 0),      -- bytes of all checkpoints of the study; 0 means no limit
    checkpoint_bytes INTEGER NOT NULL DEFAULT 0,                        -- bytes of the states in checkpoint and best_checkpoint; triggers keep it
    dropped          INTEGER NOT NULL DEFAULT 0 CHECK (dropped >= 0),   -- finished trials whose checkpoints were removed to keep the quota
    given_out        TEXT CHECK (given_out IS NULL OR json_valid(given_out)) -- how a coordinator runs the study, with the keys of a study file; NULL if none does
) STRICT;

-- One training: one network at one point of the study's axes, from one seed. All else that defines it is in the
-- settings of its study.
CREATE TABLE trial (
    id            INTEGER PRIMARY KEY,                           -- rises in the order of the plan
    study         INTEGER NOT NULL REFERENCES study (id),
    system        TEXT    NOT NULL CHECK (length(system) BETWEEN 1 AND 200), -- name of the network, 'IGC-L40M2'
    L             INTEGER CHECK (L >= 1),                        -- primary partitions of the first stage; NULL if it has none
    M             INTEGER CHECK (M >= 1),                        -- channels of each, secondary partitions
    point         TEXT    NOT NULL DEFAULT '' CHECK (length(point) <= 200), -- the value of each setting of which the study has a list, 'batch=64,learning_rate=0.05'; '' if it has none
    seed          INTEGER NOT NULL CHECK (seed >= 0),
    status        TEXT    NOT NULL CHECK (status IN ('pending', 'running', 'done', 'diverged', 'failed')),
    epochs        INTEGER NOT NULL CHECK (epochs >= 1),          -- epochs of the whole training
    until         INTEGER NOT NULL DEFAULT 0 CHECK (until BETWEEN 0 AND epochs), -- epoch that the newest attempt trains to; 0 before the first
    multiply_adds INTEGER NOT NULL CHECK (multiply_adds >= 0),   -- multiply-adds, forward pass of one picture
    params        INTEGER NOT NULL CHECK (params >= 0),          -- parameters of the network, 0 if unknown
    changed       INTEGER NOT NULL DEFAULT 0 CHECK (changed >= 0), -- study.changes at the last change to the trial
    outside       INTEGER NOT NULL DEFAULT 0 CHECK (outside IN (0, 1)), -- 1 of a trial that the study had before its settings left it out
    UNIQUE (study, system, point, seed)
) STRICT;

CREATE INDEX changed_trial ON trial (study, changed);

-- A process that works on trials. It counts its beat up each third of its lease. Another process that has seen the
-- beat stand still for a whole lease, by its own monotonic clock, may take its trials. No time of day is stored or
-- compared.
CREATE TABLE worker (
    id     INTEGER PRIMARY KEY CHECK (id > 0),                   -- random; of a local worker also the byte of this file that it has locked
    host   TEXT    NOT NULL,
    pid    INTEGER NOT NULL,                                     -- process on host
    lease  INTEGER NOT NULL CHECK (lease > 0),                   -- ms
    beat   INTEGER NOT NULL CHECK (beat >= 0),
    remote INTEGER NOT NULL DEFAULT 0 CHECK (remote IN (0, 1)),  -- it does not open this file; a coordinator counts its beat up
    job    TEXT    NOT NULL DEFAULT '',                          -- of the scheduler that started it, 'slurm 12_3', 'slurm 12_3 restart 1'; '' outside one
    silent TEXT    NOT NULL DEFAULT ''                           -- it is silent, and this is why its scheduler cannot be asked about its job; '' otherwise
) STRICT;

-- One worker's try at a trial: when, where, by which program.
CREATE TABLE attempt (
    id         INTEGER PRIMARY KEY,
    trial      INTEGER NOT NULL REFERENCES trial (id),
    worker     INTEGER REFERENCES worker (id),                   -- that has the trial; NULL once the attempt has ended
    token      BLOB CHECK (length(token) = 16),                  -- random, known to the worker alone; NULL of imported results
    started    INTEGER NOT NULL CHECK (started BETWEEN 1 AND 253402300799999), -- time (ms)
    ended      INTEGER CHECK (ended BETWEEN started AND 253402300799999),      -- time (ms), NULL while open
    -- NULL while open. 'paused': at the last epoch that it was to train. 'lost': its process was killed or stood still.
    outcome    TEXT CHECK (outcome IN ('done', 'diverged', 'failed', 'interrupted', 'lost', 'paused')),
    -- Why it ended before its epoch; NULL if it did not.
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
    job        TEXT    NOT NULL DEFAULT '',                      -- of the worker
    CHECK ((ended IS NULL) = (outcome IS NULL)),
    CHECK ((ended IS NULL) = (worker IS NOT NULL))
) STRICT;

CREATE INDEX attempt_of_trial ON attempt (trial);
CREATE INDEX attempt_of_worker ON attempt (worker) WHERE worker IS NOT NULL;

-- A claim that arrives twice is known by its token.
CREATE INDEX attempt_of_token ON attempt (token) WHERE token IS NOT NULL;

-- A trial never has two attempts at once.
CREATE UNIQUE INDEX one_open_attempt ON attempt (trial) WHERE ended IS NULL;

-- How often a trial failed in each way since it was planned, or since people asked to try it again.
CREATE TABLE failure (
    trial INTEGER NOT NULL REFERENCES trial (id),
    kind  TEXT    NOT NULL CHECK (kind IN ('diverged', 'out of memory', 'timeout', 'crashed', 'lost', 'interrupted')),
    count INTEGER NOT NULL CHECK (count >= 1),                   -- attempts
    PRIMARY KEY (trial, kind)
) STRICT, WITHOUT ROWID;

-- The columns after attempt are those of epochColumns in epoch.go.
CREATE TABLE epoch (
    trial              INTEGER NOT NULL REFERENCES trial (id),
    number             INTEGER NOT NULL CHECK (number >= 1),
    attempt            INTEGER NOT NULL REFERENCES attempt (id), -- that measured it
    learning_rate      REAL    NOT NULL CHECK (learning_rate >= 0),
    train_loss         REAL,                                     -- nats per picture; NULL is NaN, which SQLite does not have
    train_correct      INTEGER NOT NULL,                         -- pictures
    train_total        INTEGER NOT NULL,                         -- pictures
    validation_correct INTEGER NOT NULL,                         -- pictures
    validation_total   INTEGER NOT NULL,                         -- pictures, 0 if not evaluated
    test_correct       INTEGER NOT NULL,                         -- pictures
    test_total         INTEGER NOT NULL,                         -- pictures, 0 if not evaluated
    train_seconds      REAL    NOT NULL CHECK (train_seconds >= 0), -- s, training steps and their input
    eval_seconds       REAL    NOT NULL CHECK (eval_seconds >= 0),  -- s
    validation_loss    REAL,                                     -- nats per picture; NULL if not evaluated or not recorded
    test_loss          REAL,                                     -- nats per picture; NULL if not evaluated or not recorded
    PRIMARY KEY (trial, number),
    CHECK (train_correct BETWEEN 0 AND train_total),
    CHECK (validation_correct BETWEEN 0 AND validation_total),
    CHECK (test_correct BETWEEN 0 AND test_total)
) STRICT, WITHOUT ROWID;

-- The states of a training after its newest two epochs; a new one takes the place of the older.
CREATE TABLE checkpoint (
    trial  INTEGER NOT NULL REFERENCES trial (id),
    slot   INTEGER NOT NULL CHECK (slot IN (0, 1)),              -- of even and odd epochs
    epoch  INTEGER NOT NULL,                                     -- epochs finished
    state  BLOB    NOT NULL,                                     -- the trainer's encoding
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),         -- of state, trial and epoch: stateSum
    PRIMARY KEY (trial, slot),
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, number),
    CHECK (slot = epoch % 2)
) STRICT;

-- The state after the epoch of the best validation accuracy, where the study keeps it.
CREATE TABLE best_checkpoint (
    trial  INTEGER PRIMARY KEY REFERENCES trial (id),
    epoch  INTEGER NOT NULL,                                     -- epochs finished
    state  BLOB    NOT NULL,                                     -- the trainer's encoding
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),         -- as of a checkpoint
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, number)
) STRICT;

-- study.checkpoint_bytes is the sum over both tables. To add the states up at every epoch would take long.

CREATE TRIGGER checkpoint_insert AFTER INSERT ON checkpoint BEGIN
    UPDATE study SET checkpoint_bytes = checkpoint_bytes + length(new.state) WHERE id = (SELECT study FROM trial WHERE id = new.trial);
END;

CREATE TRIGGER checkpoint_delete AFTER DELETE ON checkpoint BEGIN
    UPDATE study SET checkpoint_bytes = checkpoint_bytes - length(old.state) WHERE id = (SELECT study FROM trial WHERE id = old.trial);
END;

CREATE TRIGGER checkpoint_update AFTER UPDATE ON checkpoint BEGIN
    UPDATE study SET checkpoint_bytes = checkpoint_bytes + length(new.state) - length(old.state) WHERE id = (SELECT study FROM trial WHERE id = new.trial);
END;

CREATE TRIGGER best_checkpoint_insert AFTER INSERT ON best_checkpoint BEGIN
    UPDATE study SET checkpoint_bytes = checkpoint_bytes + length(new.state) WHERE id = (SELECT study FROM trial WHERE id = new.trial);
END;

CREATE TRIGGER best_checkpoint_delete AFTER DELETE ON best_checkpoint BEGIN
    UPDATE study SET checkpoint_bytes = checkpoint_bytes - length(old.state) WHERE id = (SELECT study FROM trial WHERE id = old.trial);
END;

CREATE TRIGGER best_checkpoint_update AFTER UPDATE ON best_checkpoint BEGIN
    UPDATE study SET checkpoint_bytes = checkpoint_bytes + length(new.state) - length(old.state) WHERE id = (SELECT study FROM trial WHERE id = new.trial);
END;
