package store

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lease is how long a process may stand still before another takes its trials.
const lease = time.Minute

// joining is how long to wait for a process that is about to join or leave, or
// that brings the schema up to date.
const joining = 10 * time.Second

// worker is this process among those that run studies of a database.
//
// Who is alive is asked in two ways. Each worker holds a lock on one byte of
// "<database>.lock", which the system gives back when the process ends, however
// that happens: a free byte frees the trials at once, whatever process numbers,
// containers and clocks say. And each counts a heartbeat up: one that holds its
// byte and counts no more, because it is stopped or hangs, is watched for a whole
// lease by the monotonic clock of the watcher. No time of day takes part.
type worker struct {
	id        int64 // of table worker, and the byte of the lock file
	path      string
	exclusive bool // no other process can be there

	mu     sync.Mutex
	file   *os.File
	beaten time.Time // of the last heartbeat, by the monotonic clock
	seen   map[int64]*watch
}

// watch is what this process has seen of another's heartbeat.
type watch struct {
	beat  int64
	last  time.Time     // looked at, by the monotonic clock
	still time.Duration // that the beat did not move for
}

// Join makes this process one of those that run studies of the database, until
// DB is closed or the process ends, even by SIGKILL. Readers need not join. On a
// network file system, whose locks and shared memory cannot be trusted between
// machines, only one process can.
func (db *DB) Join(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.write == nil {
		return reported{fmt.Errorf("join database %s: it was opened for reading only", db.name)}
	}
	if db.self != nil {
		return nil
	}
	var random [8]byte
	crand.Read(random[:]) // never fails
	w := &worker{id: int64(binary.LittleEndian.Uint64(random[:])>>2) + 1, path: db.path + ".lock", exclusive: db.network != "", seen: map[int64]*watch{}}
	var err error
	if w.file, err = db.lock(w.exclusive, w.id, db.patience); err != nil {
		return err
	}
	if err := db.update(ctx, func(tx *sql.Tx) error { return w.putRow(ctx, tx, db.lease) }); err != nil {
		unlock(w.file)
		return db.explain("join database", err)
	}
	w.beaten = time.Now()
	db.self = w
	return nil
}

// putRow counts the heartbeat up. It stores the row anew where another process
// has taken this one for lost.
func (w *worker) putRow(ctx context.Context, tx *sql.Tx, lease time.Duration) error {
	host, _ := os.Hostname() // "" is stored as unknown
	_, err := tx.ExecContext(ctx, `INSERT INTO worker (id, host, pid, lease, beat) VALUES (?, ?, ?, ?, 0)
		ON CONFLICT (id) DO UPDATE SET beat = beat + 1`, w.id, host, os.Getpid(), lease.Milliseconds())
	return err
}

// Beat implements search.Store.
func (db *DB) Beat(ctx context.Context) (next time.Duration, err error) {
	next = db.lease / 3
	if err := db.Join(ctx); err != nil {
		return next, err
	}
	w := db.self
	w.mu.Lock()
	if held, err := w.file.Stat(); err == nil { // somebody may have removed the lock file
		if named, err := os.Stat(w.path); err != nil || !os.SameFile(held, named) {
			if f, err := db.lock(w.exclusive, w.id, db.patience); err == nil {
				w.file.Close()
				w.file = f
			}
		}
	}
	w.mu.Unlock()
	err = db.update(ctx, func(tx *sql.Tx) error {
		if err := w.putRow(ctx, tx, db.lease); err != nil {
			return err
		}
		return db.beatGuests(ctx, tx)
	})
	if err == nil {
		w.mu.Lock()
		w.beaten = time.Now()
		w.mu.Unlock()
		err = db.reclaim(ctx, true)
	}
	return next, db.explain("extend the lease of this process in", err)
}

// lookAround is reclaim, unless it was done just now: with a thousand workers it
// costs more than all else that a claim does.
func (db *DB) lookAround(ctx context.Context) error {
	db.mu.Lock()
	just := time.Since(db.looked) < db.lease/600 // 100 ms
	db.mu.Unlock()
	if just {
		return nil
	}
	return db.reclaim(ctx, false)
}

// reclaim makes the trials of dead workers pending. A scheduler is asked only by
// Beat, for which nobody waits: its answer may take long.
func (db *DB) reclaim(ctx context.Context, ask bool) error {
	db.mu.Lock()
	db.looked = time.Now()
	db.mu.Unlock()
	type row struct {
		id, beat, lease int64
		guest           bool
		job             string
	}
	w := db.self
	var others []row
	err := db.view(ctx, func(tx *sql.Tx) error {
		others = nil
		return each(ctx, tx, `SELECT id, beat, lease, remote, job FROM worker WHERE id <> ?`, []any{w.id}, func(rows *sql.Rows) error {
			var r row
			err := rows.Scan(&r.id, &r.beat, &r.lease, &r.guest, &r.job)
			others = append(others, r)
			return err
		})
	})
	if err != nil {
		return err
	}
	why := map[int64]string{}
	for _, o := range others {
		switch {
		case !o.guest && w.gone(o.id):
			why[o.id] = "its process is gone"
		case !w.stands(o.id, o.beat, time.Duration(o.lease)*time.Millisecond):
		case !o.guest:
			why[o.id] = "its process stood still for its lease"
		case db.justHeard(o.id): // the next Beat will say so
		case o.job == "" || db.gone == nil || ask && db.gone(ctx, o.job):
			why[o.id] = "nothing was heard of its worker for its lease"
		}
	}
	if len(why) == 0 {
		return nil
	}
	return db.update(ctx, func(tx *sql.Tx) error {
		for _, o := range others {
			if why[o.id] == "" {
				continue
			}
			// Another process may have done so meanwhile, or the worker moved.
			r, err := tx.ExecContext(ctx, `UPDATE worker SET beat = beat WHERE id = ? AND beat = ?`, o.id, o.beat)
			if err != nil {
				return err
			}
			if n, _ := r.RowsAffected(); n == 0 {
				continue
			}
			if err := closeAll(ctx, tx, o.id, lost, why[o.id]); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM worker WHERE id = ?`, o.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// closeAll closes the open attempts of a worker; their trials become pending.
func closeAll(ctx context.Context, tx *sql.Tx, worker int64, outcome, why string) error {
	type open struct{ attempt, trial, study int64 }
	var list []open
	err := each(ctx, tx, `SELECT a.id, t.id, t.study FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.worker = ?`, []any{worker}, func(rows *sql.Rows) error {
		var o open
		err := rows.Scan(&o.attempt, &o.trial, &o.study)
		list = append(list, o)
		return err
	})
	for _, o := range list {
		if err == nil {
			err = closeAttempt(ctx, tx, o.attempt, outcome, outcome, why)
		}
		if err == nil {
			_, err = countFailure(ctx, tx, o.trial, outcome)
		}
		if err == nil {
			err = setStatus(ctx, tx, o.study, o.trial, "pending")
		}
	}
	return err
}

// gone reports whether the process of a worker has ended.
func (w *worker) gone(id int64) bool {
	if w.exclusive {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !held(w.file, id)
}

// stands reports whether a heartbeat was seen to stand still for a lease. Of the
// time between two looks at most half a lease counts: if this process was
// stopped itself, so may have been the other. None counts while this process
// cannot write a heartbeat: then nobody can.
func (w *worker) stands(id, beat int64, lease time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, now := w.seen[id], time.Now()
	if s == nil || s.beat != beat {
		w.seen[id] = &watch{beat: beat, last: now}
		return false
	}
	if now.Sub(w.beaten) < lease/2 {
		s.still += min(now.Sub(s.last), lease/2)
	}
	s.last = now
	return s.still > lease
}

// leave ends what Join began.
func (db *DB) leave(ctx context.Context) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.self == nil {
		return
	}
	// With attempts still open the row stays, and the next process closes them.
	// An error does not matter: the lock is what tells.
	db.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM worker WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM attempt WHERE worker = ?1)`, db.self.id)
		return err
	})
	unlock(db.self.file)
	db.self = nil
}

// lock opens the lock file, locks it beside other workers or exclusively, and
// locks byte id, unless that is 0. It waits so long for others; then the error
// wraps EWOULDBLOCK.
func (db *DB) lock(exclusive bool, id int64, patience time.Duration) (*os.File, error) {
	path := db.path + ".lock"
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for begin := time.Now(); ; {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, reported{fmt.Errorf("lock database %s: %w: a run needs to write in that folder; give another --db", db.name, err)}
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder, _ := io.ReadAll(io.LimitReader(f, 200))
			f.Close()
			if time.Since(begin) < patience {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if holder = bytes.TrimSpace(holder); len(holder) == 0 {
				holder = []byte("another process")
			}
			if db.network != "" {
				return nil, reported{busy{fmt.Errorf("lock database %s: %s is running a study of it, and it lies on a network file system (%s), where locks and shared memory do not reach other machines: wait for it, or give a --db on a local disk, where several processes can run", db.name, holder, db.network)}}
			}
			return nil, reported{busy{fmt.Errorf("lock database %s: %s is running a study of it, of another version of igcsearch or as the only one: wait for it, stop it, or give another --db", db.name, holder)}}
		}
		if err != nil {
			f.Close()
			return nil, reported{fmt.Errorf("lock %s: %w", path, err)}
		}
		// unlock removes the file: what is locked here may no longer be what the
		// next process will find under this name.
		mine, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 != nil || err2 != nil || !os.SameFile(mine, named) {
			f.Close()
			continue
		}
		if id > 0 && !exclusive {
			l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: id, Len: 1}
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
				f.Close()
				return nil, reported{fmt.Errorf("lock %s: %w", path, err)}
			}
		}
		host, _ := os.Hostname()
		f.Truncate(0) // only text for a message: its errors do not matter
		f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
		return f, nil
	}
}

// busy is an error of flock in words.
type busy struct{ error }

func (busy) Is(target error) bool { return target == unix.EWOULDBLOCK }

// held reports whether a worker has the lock on its byte.
func held(f *os.File, id int64) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: id, Len: 1}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l)
	return err != nil || l.Type != unix.F_UNLCK
}

// unlock gives the locks back. It removes the file if no other process has it:
// then nobody can have locked it in between.
func unlock(f *os.File) {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		os.Remove(f.Name())
	}
	f.Close()
}

// alive reports whether the process of an open attempt is there, as far as one
// can know who only reads. An older igcsearch stored no worker.
func (db *DB) alive(worker sql.NullInt64, host string, pid int) bool {
	if !worker.Valid {
		here, _ := os.Hostname() // "" matches no attempt
		return host != here || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	if db.network != "" {
		return true
	}
	f, err := os.Open(db.path + ".lock")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return held(f, worker.Int64)
}

// networkSystems are the file systems that several machines share, or that may
// pass a share of another machine on.
var networkSystems = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS", unix.SMB2_SUPER_MAGIC: "SMB",
	unix.V9FS_MAGIC: "9P", unix.FUSE_SUPER_MAGIC: "FUSE", unix.AFS_SUPER_MAGIC: "AFS", unix.AFS_FS_MAGIC: "AFS",
	unix.CEPH_SUPER_MAGIC: "Ceph", unix.CODA_SUPER_MAGIC: "Coda", unix.OCFS2_SUPER_MAGIC: "OCFS2", unix.NCP_SUPER_MAGIC: "NCP",
	0x0bd00bd0: "Lustre", 0x47504653: "GPFS", 0x19830326: "BeeGFS", 0x01161970: "GFS2", 0xaad7aaea: "PanFS", 0x20030528: "OrangeFS",
}

// networkSystem names the network file system that a file lies on, or will; ""
// for a local one.
func networkSystem(path string) string {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil && unix.Statfs(filepath.Dir(path), &s) != nil {
		return ""
	}
	return networkSystems[uint32(s.Type)]
}
