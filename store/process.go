package store

import (
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"igcsearch/search"
)

// patience is how long to wait for a process that is about to join or leave, or that creates the tables.
const patience = 10 * time.Second

// process is this process as one of the local workers of a database.
//
// There are two ways to know who is alive. Each process has a byte of the database file locked, see lock.go. The system
// gives the byte back when the process ends, however that happens, so its trials are free at once, whatever process
// numbers, containers and clocks say. And each process counts a heartbeat up. One that holds its byte but does not count
// any more, because it is stopped or hangs, loses its trials when another process has watched it stand still for a whole
// lease, by its own monotonic clock. No time of day is used.
type process struct {
	Worker         // its ID is the byte that it has locked
	exclusive bool // no other process can be there

	mu     sync.Mutex
	beaten time.Time // of the last heartbeat, by the monotonic clock
	seen   map[int64]*search.HeartbeatWatch
}

// Join makes this process one of those that run studies of the database, until the DB is closed or the process ends,
// even by SIGKILL. Readers need not join. On a network file system only one process can join, because its locks and its
// shared memory cannot be trusted between machines.
func (db *DB) Join(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.write == nil {
		return db.fault("join database", Other, errors.New("it was opened for reading only"))
	}
	if db.self != nil {
		return nil
	}
	var random [8]byte
	crand.Read(random[:]) // never fails
	id := int64(binary.LittleEndian.Uint64(random[:])%workerIDs) + 1
	p := &process{Worker: localWorker(id), exclusive: db.network != "", seen: map[int64]*search.HeartbeatWatch{}}
	if p.exclusive {
		err := db.lockMain(ctx, unix.F_WRLCK, runByte)
		if errors.Is(err, errTaken) {
			err = db.inUse(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := db.file.lock(unix.F_WRLCK, workerBytes+id, 1); err != nil {
		return db.noLocks(err)
	}
	if err := db.update(ctx, func(tx *sql.Tx) error { return p.putRow(ctx, tx, db.lease) }); err != nil {
		db.unlock(p)
		return db.explain("join database", err)
	}
	// From now on the main file alone shows that the database is in use, see LogMissing. If a reader is in the way, a
	// later checkpoint does that.
	db.write.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
	p.beaten = time.Now()
	db.self = p
	db.own.Store(p.ID)
	return nil
}

// Beat implements search.Store.
func (db *DB) Beat(ctx context.Context) (next time.Duration, err error) {
	next = db.lease / 3
	if err := db.Join(ctx); err != nil {
		return next, err
	}
	p := db.self
	err = db.update(ctx, func(tx *sql.Tx) error {
		if err := p.putRow(ctx, tx, db.lease); err != nil {
			return err
		}
		return db.beatRemotes(ctx, tx)
	})
	if err == nil {
		p.mu.Lock()
		p.beaten = time.Now()
		p.mu.Unlock()
		err = db.reclaim(ctx, true)
	}
	return next, db.explain("extend the lease of this process in", err)
}

// lookAround is reclaim, unless that was called just now. With a thousand workers reclaim costs more than all else that
// a claim does.
func (db *DB) lookAround(ctx context.Context) error {
	db.mu.Lock()
	just := time.Since(db.looked) < db.lease/600 // 100 ms
	db.mu.Unlock()
	if just {
		return nil
	}
	return db.reclaim(ctx, false)
}

// otherWorker is a worker as its row has it.
type otherWorker struct {
	Worker
	beat, lease int64
	silent      string // as its row has it
}

// reclaim makes the trials of dead workers pending. Only Beat, for which nobody waits, lets it ask a scheduler, whose
// answer may take long.
func (db *DB) reclaim(ctx context.Context, ask bool) error {
	db.mu.Lock()
	db.looked = time.Now()
	db.mu.Unlock()
	var others []otherWorker
	err := db.view(ctx, func(tx *sql.Tx) error {
		others = nil
		return each(ctx, tx, `SELECT id, host, beat, lease, remote, job, silent
			FROM worker WHERE id <> ?`, []any{db.self.ID}, func(rows *sql.Rows) error {
			var o otherWorker
			err := rows.Scan(&o.ID, &o.Host, &o.beat, &o.lease, &o.Remote, &o.Job, &o.silent)
			others = append(others, o)
			return err
		})
	})
	if err != nil {
		return err
	}
	why := map[int64]string{}
	for _, o := range others {
		text, silent := db.dead(ctx, o, others, ask)
		if text != "" {
			why[o.ID] = text
		} else if ask && silent != o.silent {
			if err := db.setSilent(ctx, o, silent); err != nil {
				return err
			}
		}
	}
	if len(why) == 0 {
		return nil
	}
	return db.update(ctx, func(tx *sql.Tx) error {
		for _, o := range others {
			if why[o.ID] == "" {
				continue
			}
			// Another process may have removed the worker meanwhile, or the worker moved.
			n, err := changes(tx.ExecContext(ctx, `UPDATE worker SET beat = beat WHERE id = ? AND beat = ?`,
				o.ID, o.beat))
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			if err := closeAttempts(ctx, tx, o.ID, search.EndedLost, why[o.ID]); err != nil {
				return err
			}
			if err := exec(ctx, tx, `DELETE FROM worker WHERE id = ?`, o.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// dead says why a worker has lost its trials, "" if it has not. silent says why the scheduler cannot be asked about a
// worker that is silent.
func (db *DB) dead(ctx context.Context, o otherWorker, others []otherWorker, ask bool) (why, silent string) {
	const lost = "nothing was heard of its worker for its lease"
	lease := time.Duration(o.lease) * time.Millisecond
	switch {
	case !o.Remote && (db.self.exclusive || !db.file.takenByWorker(o.ID)):
		return "its process is gone", ""
	case !db.self.stands(o.ID, o.beat, lease):
	case !o.Remote:
		return "its process stood still for its lease", ""
	case db.justHeard(o.ID): // the next Beat stores that
	case o.Job == "" || db.gone == nil:
		return lost, ""
	case slices.ContainsFunc(others, func(w otherWorker) bool { return w.Remote && search.Requeued(o.Job, w.Job) }):
		return "its job was started again", ""
	case ask:
		gone, err := db.gone(ctx, o.Job)
		switch {
		case gone:
			return lost, ""
		case db.self.asked(o.ID, err, lease):
			return fmt.Sprintf("%s, and its scheduler could not be asked about its job: %v", lost, err), ""
		case err != nil:
			return "", search.Bounded(err.Error())
		}
	}
	return "", ""
}

// setSilent stores why the scheduler cannot be asked about a worker that is silent, and tells people whose trials wait.
// Of several processes that find it out, one tells.
func (db *DB) setSilent(ctx context.Context, o otherWorker, silent string) error {
	var trials []string
	changed := false
	err := db.update(ctx, func(tx *sql.Tx) error {
		n, err := changes(tx.ExecContext(ctx, `UPDATE worker SET silent = ? WHERE id = ? AND beat = ? AND silent = ?`,
			silent, o.ID, o.beat, o.silent))
		if changed = n > 0; err != nil || !changed || silent == "" {
			return err
		}
		trials = nil
		systems := systemNames{}
		return each(ctx, tx, `SELECT t.system, t.point, t.seed FROM attempt a JOIN trial t ON t.id = a.trial
			WHERE a.worker = ? ORDER BY t.id`, []any{o.ID}, func(rows *sql.Rows) error {
			var k search.Key
			err := rows.Scan(systems.into(&k.System), &k.At, &k.Seed)
			trials = append(trials, k.String())
			return err
		})
	})
	if err == nil && len(trials) > 0 && db.note != nil {
		db.note(search.Waiting(o.Job, o.Host, silent, trials, time.Duration(o.lease)*time.Millisecond))
	}
	return err
}

// asked takes in what came of asking a scheduler about a worker that stands. It reports whether the scheduler could not
// be asked for so long that the lease alone decides.
func (p *process) asked(id int64, err error, lease time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[id].Asked(err, lease)
}

// stands reports whether the heartbeat of a worker was seen to stand still for its lease.
func (p *process) stands(id, beat int64, lease time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[id] == nil {
		p.seen[id] = new(search.HeartbeatWatch)
	}
	return p.seen[id].Stands(beat, lease, p.beaten)
}

// leave ends what Join began.
func (db *DB) leave(ctx context.Context) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.self == nil {
		return
	}
	// While attempts are open the row stays, and the next process closes them. An error does not matter, because the
	// lock tells that this process has ended.
	db.update(ctx, func(tx *sql.Tx) error {
		return exec(ctx, tx, `DELETE FROM worker
			WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM attempt WHERE worker = ?1)`, db.self.ID)
	})
	db.unlock(db.self)
	db.self = nil
}

// unlock gives back what Join has locked.
func (db *DB) unlock(p *process) {
	db.own.Store(0)
	db.file.lock(unix.F_UNLCK, workerBytes+p.ID, 1)
	db.file.lock(unix.F_UNLCK, runByte, 1)
}

// alive reports whether the process of a worker is there, as far as a reader can know. A remote worker holds no lock.
// Only its process number tells, if it runs on this machine.
func (db *DB) alive(w Worker) bool {
	if w.Remote {
		here, _ := os.Hostname() // "" matches no worker
		return w.Host != here || !errors.Is(syscall.Kill(w.PID, 0), syscall.ESRCH)
	}
	if db.network != "" {
		return true
	}
	return db.own.Load() == w.ID || db.file.takenByWorker(w.ID)
}

// networkSystems are the file systems that several machines share, or behind which a share of another machine may lie.
var networkSystems = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.V9FS_MAGIC:       "9P", unix.FUSE_SUPER_MAGIC: "FUSE", unix.AFS_SUPER_MAGIC: "AFS", unix.AFS_FS_MAGIC: "AFS",
	unix.CEPH_SUPER_MAGIC: "Ceph", unix.CODA_SUPER_MAGIC: "Coda", unix.OCFS2_SUPER_MAGIC: "OCFS2",
	unix.NCP_SUPER_MAGIC: "NCP", 0x0bd00bd0: "Lustre", 0x47504653: "GPFS", 0x19830326: "BeeGFS", 0x01161970: "GFS2",
	0xaad7aaea: "PanFS", 0x20030528: "OrangeFS",
}

// networkSystem names the network file system of a file, also of one that does not exist yet; "" for a local one.
func networkSystem(path string) string {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil && unix.Statfs(filepath.Dir(path), &s) != nil {
		return ""
	}
	return networkSystems[uint32(s.Type)]
}
